#!/bin/sh
# repo.sh DIR RPM...  creates a dnf repository with these packages in DIR. Copy
# DIR/compute-daemons.repo to /etc/yum.repos.d on the nodes.
#
#   REPO_URL  URL of DIR for the nodes (default: file:// and its path)
#   GPG_KEY   ID of the gpg key that signs the packages and the metadata; without it,
#             nothing is signed, and dnf checks no signatures
set -eu
dir=$(realpath -m "$1")
shift
url=${REPO_URL:-file://$dir}
key=RPM-GPG-KEY-compute-daemons
new=$dir.new
rm -rf "$new"
mkdir -p "$new"
cp "$@" "$new/"

if [ -n "${GPG_KEY:-}" ]; then
  GPG_TTY=$(tty) || :
  export GPG_TTY
  # rpm of Debian does not find gpg.
  rpmsign --define "__gpg $(command -v gpg)" --define "_gpg_name $GPG_KEY" --addsign "$new"/*.rpm >/dev/null
  gpg --armor --export "$GPG_KEY" >"$new/$key"
fi
# All versions of dnf support gzip.
createrepo_c --quiet --no-database --general-compress-type=gz "$new"
{
  echo "[compute-daemons]"
  echo "name=Daemons for the compute nodes of Near-Node Flash systems"
  echo "baseurl=$url"
  if [ -n "${GPG_KEY:-}" ]; then
    gpg --batch --armor --detach-sign --local-user "$GPG_KEY" "$new/repodata/repomd.xml"
    echo "gpgcheck=1"
    echo "repo_gpgcheck=1"
    echo "gpgkey=$url/$key"
  else
    echo "# Not signed: make repo GPG_KEY=... signs the packages and the metadata."
    echo "gpgcheck=0"
  fi
} >"$new/compute-daemons.repo"
rm -rf "$dir"
mv "$new" "$dir"
