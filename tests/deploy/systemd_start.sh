#!/usr/bin/env bash
# Starts the systemd unit: a second systemd runs in its own namespaces, where the commands of deploy/README.md install the
# gateway. Needs permission to create namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh

unshare --mount true 2>/dev/null || { echo "namespaces are not permitted: the unit was not started"; exit 0; }
if [ ! -x /lib/systemd/systemd ]; then
  command -v apt-get >/dev/null || { echo "systemd is missing and apt-get is not available: the unit was not started"; exit 0; }
  packages systemd
fi
. tests/deploy/calls.sh
cargo build --locked --quiet --bin scm-gateway
emulator

# The operator's files. The emulated SCM and the ports belong to the test.
mkdir -p "$folder/hand/deploy" "$folder/space" "$folder/units/scm-gateway.service.d"
cp "$target/debug/scm-gateway" "$folder/hand"
cp -r deploy/systemd "$folder/hand/deploy"
printed HUAWEICLOUD_SDK_AK >"$folder/hand/ak"
printed HUAWEICLOUD_SDK_SK >"$folder/hand/sk"
{
  printf '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n'
  printf '[upstream]\nendpoint = "%s"\n' "$(printed SCM_GATEWAY__UPSTREAM__ENDPOINT)"
  commands_of systemd toml | sed "s/^id = .*/id = \"$(printed HUAWEICLOUD_SDK_PROJECT_ID)\"/"
} >"$folder/hand/scm-gateway.toml"

# The targets that the unit depends on, and a log file instead of the journal.
for one in sysinit basic network-online shutdown multi-user; do
  printf '[Unit]\nDefaultDependencies=no\n' >"$folder/units/$one.target"
done
printf '[Service]\nStandardOutput=append:%s\nStandardError=inherit\n' "$folder/log" >"$folder/units/scm-gateway.service.d/log.conf"

# Installed files are in `space`, and disappear with the namespaces.
unshare --mount --pid --uts --ipc --cgroup --fork --mount-proc bash -c '
  set -eu
  mount --make-rshared /
  mount -t tmpfs tmpfs "$0/space"
  mkdir "$0"/space/{etc,etc-work,bin,bin-work}
  mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/space/etc,workdir=$0/space/etc-work" /etc
  mount -t overlay overlay -o "lowerdir=/usr/local/bin,upperdir=$0/space/bin,workdir=$0/space/bin-work" /usr/local/bin
  mount -t tmpfs tmpfs /etc/systemd/system
  mount -t tmpfs tmpfs /run
  if [ "$(stat --file-system --format %T /sys/fs/cgroup)" != cgroup2fs ]; then
    # systemd makes this folder read-only, so it must not be the folder of the machine.
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  fi
  export container=test SYSTEMD_UNIT_PATH="/etc/systemd/system:$0/units"
  exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=null --show-status=no
' "$folder" >"$folder/systemd" 2>&1 &
outside=$!
at_exit 'rmdir /sys/fs/cgroup/*/{init.scope,system.slice}' # removes the empty cgroups that it leaves; those of the machine are not empty
at_exit "kill -KILL \$(pgrep --parent $outside); wait $outside" # unshare ignores SIGTERM
inside() { nsenter --target "$(pgrep --parent "$outside")" --mount --pid --uts --ipc --cgroup -- "$@"; }
show() { inside systemctl show scm-gateway --property "$1" --value; }

for _ in $(seq 100); do inside systemctl is-active --quiet multi-user.target 2>/dev/null && break; sleep 0.1; done
inside systemctl is-active --quiet multi-user.target || { echo "systemd did not start"; cat "$folder/systemd"; exit 1; }

# Prints the addresses of the gateway after its n-th start.
started() {
  for _ in $(seq 100); do [ "$(grep -c '"listen"' "$folder/log")" = "$1" ] && break; sleep 0.1; done
  sed -n 's/.*"listen":"\([^"]*\)","admin":"\([^"]*\)".*/\1 \2/p' "$folder/log" | tail -n 1
}

inside bash -ec "cd '$folder/hand'; $(commands_of systemd)"
read -r address admin < <(started 1)
ready "$admin"
save "$address"
pid="$(show MainPID)"
status="$(inside cat "/proc/$pid/status")"
user="$(sed -n 's/^Uid:\t\([0-9]*\)\t.*/\1/p' <<<"$status")"
[ "$user" -ge 61184 ] # the range of DynamicUser=
grep -q $'^CapBnd:\t0000000000000000$' <<<"$status"
grep -q $'^NoNewPrivs:\t1$' <<<"$status"
grep -q $'^Seccomp:\t2$' <<<"$status"
[ "$(curl -fsS "http://$admin/metrics" | grep -c '^process_')" = 7 ] # although most of /proc is hidden
[ "$(inside stat --format '%u %a' /run/credentials/scm-gateway.service/sk)" = "$user 400" ]
echo "The unit starts without privileges, only its user can read the credentials, and a SaveInfo succeeds."

inside kill -KILL "$pid"
read -r address admin < <(started 2)
ready "$admin"
[ "$(show NRestarts)" = 1 ]
inside systemctl stop scm-gateway
[ "$(show ActiveState) $(show ExecMainStatus)" = "inactive 0" ]
echo "The unit restarts after a crash, and exits with 0 when it is stopped."

inside bash -c 'echo "wrong = 1" >/etc/scm-gateway/scm-gateway.toml'
inside systemctl start scm-gateway
sleep 3 # three times RestartSec
[ "$(show ActiveState) $(show ExecMainStatus) $(show NRestarts)" = "failed 78 0" ]
echo "The unit does not restart after an invalid configuration."
