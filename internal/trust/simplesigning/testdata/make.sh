#!/usr/bin/env bash
# Makes the files of this folder anew with GnuPG 2.2 or later. They expire never, or have expired by
# the clock of the tests. No private key is kept.
set -eu
cd "$(dirname "$0")"
GNUPGHOME="$(mktemp -d)"
export GNUPGHOME
trap 'gpgconf --kill all; rm -rf "$GNUPGHOME"' EXIT
digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
payload='{"critical":{"identity":{"docker-reference":"registry.example.com/acme/app:v1"},"image":{"docker-manifest-digest":"'$digest'"},"type":"atomic container signature"},"optional":{"creator":"by hand","timestamp":1767261600}}'
rm -f ./*.asc ./*.sig
g() { gpg --batch --quiet --yes --no-tty --pinentry-mode loopback --passphrase '' --faked-system-time "$@"; }
new=20260101T000000
later=20260101T100000

# A key that signs itself, and one that signs by a subkey.
g $new --quick-generate-key 'CI <ci@example.com>' rsa2048 sign never
g $new --quick-generate-key 'QA <qa@example.com>' ed25519 cert never
qa="$(gpg --list-keys --with-colons qa@example.com | awk -F: '/^fpr/{print $10; exit}')"
g $new --quick-add-key "$qa" ed25519 sign never
gpg --armor --export ci@example.com >ci.asc
gpg --armor --export qa@example.com >qa.asc

printf %s "$payload" >payload
g $later -u ci@example.com --output ci.sig --sign payload
g $later -u qa@example.com --output qa.sig --sign payload
g $later -u qa@example.com --compress-algo none --output uncompressed.sig --sign payload
g $later -u qa@example.com --compress-algo zlib --output zlib.sig --sign payload
g $later -u qa@example.com --compress-algo bzip2 --output bzip2.sig --sign payload
g $later -u qa@example.com --output - --sign - <payload >piped.sig
g $later -u qa@example.com --armor --output armored.sig --sign payload
g $later -u qa@example.com --output clear.sig --clear-sign payload
g $later -u qa@example.com --output detached.sig --detach-sign payload
g $later -u qa@example.com --textmode --output text.sig --sign payload
g $later -u qa@example.com -u ci@example.com --output both.sig --sign payload
g $later -u qa@example.com --default-sig-expire 1d --output expires.sig --sign payload
g $later -u qa@example.com --digest-algo SHA1 --output sha1.sig --sign payload
g $later -u qa@example.com --cert-notation '!a@example.com=b' --sig-notation '!a@example.com=b' --output notation.sig --sign payload
g $later --output unsigned.sig --store payload

# A subkey that its primary key has bound with SHA-1.
g $new --quick-generate-key 'Sub <sub@example.com>' rsa2048 cert never
sub="$(gpg --list-keys --with-colons sub@example.com | awk -F: '/^fpr/{print $10; exit}')"
g $new --allow-weak-key-signatures --cert-digest-algo SHA1 --quick-add-key "$sub" rsa2048 sign never
g $later -u sub@example.com --output subkey-sha1.sig --sign payload
gpg --armor --export sub@example.com >subkey-sha1.asc

# Keys that are refused.
g $new --cert-digest-algo SHA1 --quick-generate-key 'Old <sha1@example.com>' rsa2048 sign never
g $new --quick-generate-key 'Old <dsa@example.com>' dsa2048 sign never
g $new --quick-generate-key 'Old <weak@example.com>' rsa1024 sign never
g $new --quick-generate-key 'Old <certify@example.com>' ed25519 cert never
for name in sha1 dsa weak certify; do gpg --armor --export $name@example.com >$name.asc; done
