#!/usr/bin/env bash
# The systemd unit, really started: a second systemd, in namespaces beside the machine's own, where the commands of
# deploy/README.md install the gateway. Needs the right to make namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh

unshare --mount true 2>/dev/null || { echo "no right to make namespaces: the unit was not started"; exit 0; }
if [ ! -x /lib/systemd/systemd ]; then
  command -v apt-get >/dev/null || { echo "no systemd, and no apt-get to get it with: the unit was not started"; exit 0; }
  packages systemd
fi
. tests/deploy/calls.sh
cargo build --locked --quiet --bin scm-gateway
emulator

# What the operator has at hand. The emulated SCM and the ports are this test's.
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

# The targets that the unit stands among, and a file for its log in place of the journal.
for one in sysinit basic network-online shutdown multi-user; do
  printf '[Unit]\nDefaultDependencies=no\n' >"$folder/units/$one.target"
done
printf '[Service]\nStandardOutput=append:%s\nStandardError=inherit\n' "$folder/log" >"$folder/units/scm-gateway.service.d/log.conf"

# What is installed stays in `space`, and vanishes with the namespaces.
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
    # systemd makes this folder read-only: not the one that it would share with the machine.
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  fi
  export container=test SYSTEMD_UNIT_PATH="/etc/systemd/system:$0/units"
  exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=null --show-status=no
' "$folder" >"$folder/systemd" 2>&1 &
outside=$!
at_exit 'rmdir /sys/fs/cgroup/*/{init.scope,system.slice}' # empty ones that it leaves; those of a machine's own are not
at_exit "kill -KILL \$(pgrep --parent $outside); wait $outside" # unshare heeds no SIGTERM
inside() { nsenter --target "$(pgrep --parent "$outside")" --mount --pid --uts --ipc --cgroup -- "$@"; }
show() { inside systemctl show scm-gateway --property "$1" --value; }

for _ in $(seq 100); do inside systemctl is-active --quiet multi-user.target 2>/dev/null && break; sleep 0.1; done
inside systemctl is-active --quiet multi-user.target || { echo "systemd did not start"; cat "$folder/systemd"; exit 1; }

# Where the gateway listens, once it has started so many times.
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
[ "$user" -ge 61184 ] # those of DynamicUser=
grep -q $'^CapBnd:\t0000000000000000$' <<<"$status"
grep -q $'^NoNewPrivs:\t1$' <<<"$status"
grep -q $'^Seccomp:\t2$' <<<"$status"
[ "$(inside stat --format '%u %a' /run/credentials/scm-gateway.service/sk)" = "$user 400" ]
echo "It starts without privileges, its key is for it alone, and a SaveInfo goes through."

inside kill -KILL "$pid"
read -r address admin < <(started 2)
ready "$admin"
[ "$(show NRestarts)" = 1 ]
inside systemctl stop scm-gateway
[ "$(show ActiveState) $(show ExecMainStatus)" = "inactive 0" ]
echo "It is started again after a death, and ends with 0 when it is stopped."

inside bash -c 'echo "wrong = 1" >/etc/scm-gateway/scm-gateway.toml'
inside systemctl start scm-gateway
sleep 3 # thrice RestartSec
[ "$(show ActiveState) $(show ExecMainStatus) $(show NRestarts)" = "failed 78 0" ]
echo "It is not started again after a wrong configuration."
