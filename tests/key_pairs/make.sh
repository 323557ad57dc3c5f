#!/usr/bin/env bash
# Makes the key pairs of the tests with openssl 3: for each algorithm two files, each with a certificate, a certificate
# signing request and the private key in every format. The keys protect nothing. Files that exist are kept.
set -euo pipefail
cd "$(dirname "$0")"
dir="$(mktemp -d)"
trap 'rm -r "$dir"' EXIT
key="$dir/key"

# curve NAME: what openssl calls the curve
curve() {
  case "$1" in
    p256*) echo prime256v1 ;;
    p384) echo secp384r1 ;;
    p521) echo secp521r1 ;;
    *) echo "$1" ;;
  esac
}

# formats NAME: prints what belongs to the key
formats() {
  openssl req -new -x509 -key "$key" -subj /CN=www.example.com -days 36500
  openssl req -new -key "$key" -subj /CN=www.example.com
  openssl pkcs8 -topk8 -nocrypt -in "$key"
  openssl pkcs8 -topk8 -in "$key" -passout pass:passphrase -iter 1
  case "$1" in
    rsa_[0-9]*)
      openssl rsa -in "$key" -traditional
      openssl rsa -in "$key" -traditional -aes256 -passout pass:passphrase
      ;;
    p[0-9]* | secp256k1)
      openssl ec -in "$key"
      openssl ec -in "$key" -aes256 -passout pass:passphrase
      openssl ec -in "$key" -no_public
      openssl ecparam -name "$(curve "$1")"
      ;;
    dsa) openssl dsa -in "$key" ;;
  esac
}

# pair NAME OPTION…: makes two keys with these options of genpkey
pair() {
  local name="$1" file
  shift
  for file in "${name}_a.pem" "${name}_b.pem"; do
    [ ! -e "$file" ] || continue
    openssl genpkey "$@" -out "$key"
    if [ "$name" = p256_compressed ]; then
      openssl ec -in "$key" -conv_form compressed -out "$dir/compressed"
      openssl pkcs8 -topk8 -nocrypt -in "$dir/compressed" -out "$key"
    fi
    formats "$name" >"$file"
  done
}

exec 2>"$dir/progress"
for bits in 1024 2048 3072 4096; do
  pair "rsa_$bits" -algorithm RSA -pkeyopt "rsa_keygen_bits:$bits"
done
pair rsa_large_exponent -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:1099511627791
pair rsa_pss -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
pair rsa_three_primes -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_primes:3
for curve in p256 p384 p521 secp256k1; do
  pair "$curve" -algorithm EC -pkeyopt "ec_paramgen_curve:$(curve "$curve")"
done
pair p256_compressed -algorithm EC -pkeyopt ec_paramgen_curve:P-256
pair p256_explicit -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit
pair sm2 -algorithm SM2
pair ed25519 -algorithm ED25519
pair ed448 -algorithm ED448
openssl genpkey -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:1024 -pkeyopt dsa_paramgen_q_bits:160 -out "$dir/dsa"
pair dsa -paramfile "$dir/dsa"
