# shellcheck shell=sh
# Reports the state of the node, and changes nothing. The request has lines "file PATH",
# "claims PATH", "stored PATH", "unit UNIT" and "daemon PROGRAM USER NAME...", then "end". The
# daemon runs as USER, and stores tokens under these names.

file() {
  if [ -L "$R$1" ]; then
    printf 'file\tlink\t-\t-\t%s\n' "$1"
  elif [ -f "$R$1" ]; then
    sum=$(sha256sum <"$R$1") || return 0
    printf 'file\t%s\t%s\t%s\n' "${sum%% *}" "$(stat -c '%a	%U:%G' "$R$1")" "$1"
  elif [ -d "$R$1" ]; then
    printf 'file\tdirectory\t%s\t%s\n' "$(stat -c '%a	%U:%G' "$R$1")" "$1"
  elif [ -e "$R$1" ]; then
    printf 'file\tother\t-\t-\t%s\n' "$1"
  else
    printf 'file\tabsent\t-\t-\t%s\n' "$1"
  fi
}

# content PATH: the contents of a unit or drop-in.
content() {
  [ -f "$R$1" ] || return 0
  case $1 in *[!A-Za-z0-9@._/-]*) return 0 ;; esac
  printf 'content\t%s\t%s\n' "$1" "$(head -c 65536 "$R$1" | base64 | tr -d '\n')"
}

# claims PATH: the middle part of a token, which contains its account and expiry. The signature
# never leaves the node.
claims() {
  [ -f "$R$1" ] || return 0
  token=$(timeout 10 head -c 65536 "$R$1" | head -n 1 | tr -d '\0')
  middle='' signature=''
  case $token in *.*.*) signature=${token#*.*.} middle=${token%."$signature"} middle=${middle#*.} ;; esac
  case $middle in *[!A-Za-z0-9_-]* | '') return 0 ;; esac
  [ -z "$signature" ] || printf 'claims\t%s\t%s\n' "$1" "$middle"
}

# stored PATH: a token that the daemon has stored in its state directory. The directory may
# belong to the user of the daemon, who can replace the file at any time: it is never read as a
# whole, as for a checksum.
stored() {
  state="absent"
  if [ -L "$R$1" ]; then
    state="link"
  elif [ -f "$R$1" ]; then
    state="file"
  elif [ -d "$R$1" ]; then
    state="directory"
  elif [ -e "$R$1" ]; then
    state="other"
  fi
  printf 'file\t%s\t-\t-\t%s\n' "$state" "$1"
  [ "$state" != file ] || claims "$1"
}

unit() {
  [ -n "$systemd" ] || return 0
  printf 'unit\t%s\t%s\n' "$1" "$(systemctl show --property=LoadState,ActiveState,UnitFileState,StatusText "$1" | base64 | tr -d '\n')"
}

daemon() {
  content "/etc/systemd/system/$1.service"
  content "/etc/systemd/system/$1.timer"
  for path in "$R/etc/systemd/system/$1.service.d"/*.conf; do content "${path#"$R"}"; done
  file "/usr/bin/$1"
  if [ -f "$R/usr/lib/systemd/system/$1.service" ] || [ -f "$R/lib/systemd/system/$1.service" ]; then printf 'packaged\t%s\n' "$1"; fi
  if command -v rpm >/dev/null; then
    # shellcheck disable=SC1083  # rpm's braces
    rpm -q --qf 'package\t%{NAME}\t%{NEVRA}\t%{SHA256HEADER}\n' "$1" 2>/dev/null | grep '^package	'
    # shellcheck disable=SC1083
    if [ -e "$R/usr/bin/$1" ]; then
      rpm -qf --qf 'owner\t/usr/bin/'"$1"'\t%{NEVRA}\n' "/usr/bin/$1" 2>/dev/null | grep '^owner	'
    fi
  fi
  if [ -x "$R/usr/bin/$1" ]; then
    printf 'version\t%s\t%s\n' "$1" "$(timeout 10 "$R/usr/bin/$1" version 2>/dev/null | head -n 1 | tr '\t' ' ')"
    # Older versions print no JSON, or nothing.
    answer=$(timeout 20 "$R/usr/bin/$1" status -o json 2>/dev/null | head -c 65536 | tr -d '\0')
    printf 'status\t%s\t%s\n' "$1" "$(printf %s "$answer" | base64 | tr -d '\n')"
    directory=$(printf '%s\n' "$answer" | sed -n '/^ *"renewal": {$/,/}/s|^ *"directory": "\(/[A-Za-z0-9@._:/+-]*\)",\{0,1\}$|\1|p')
    # A process of the user can report any directory.
    if [ -n "$directory" ] && [ "$(cd "$R$directory" 2>/dev/null && stat -c %U .)" = "$2" ]; then
      shift 2
      for name; do stored "$directory/$name"; done
    fi
  fi
}

# space DIRECTORY: the free space in KiB of its file system, even if DIRECTORY does not exist.
space() {
  path=$R$1
  while [ ! -d "$path" ] && [ -n "$path" ]; do path=${path%/*}; done
  printf 'space\t%s\t%s\n' "$1" "$(df -Pk "${path:-/}" | awk 'NR == 2 { print $4 }')"
}

printf 'nnf-deploy\tprobe\t1\n'
printf 'arch\t%s\n' "$(uname -m)"
systemd=
if [ -d "$R/run/systemd/system" ]; then
  systemd=$(systemctl --version | awk 'NR == 1 { print $2 }')
  printf 'systemd\t%s\n' "$systemd"
fi
while IFS=' ' read -r what value <&3; do
  case $what in
  file) file "$value" ;;
  claims) claims "$value" ;;
  stored) stored "$value" ;;
  unit) unit "$value" ;;
  daemon)
    # shellcheck disable=SC2086  # $value has several words
    daemon $value
    ;;
  end) break ;;
  esac
done
space /var/lib/nnf-deploy
space /usr/bin
space /etc
if [ -e "$D/stage" ] || [ -e "$D/pending" ]; then
  if command -v flock >/dev/null && [ -e "$D/lock" ] && ! flock -n "$D/lock" true; then
    printf 'busy\n'
  else
    printf 'interrupted\n'
    if [ -e "$D/stage" ]; then printf 'leftovers\n'; fi
    if [ -f "$D/pending" ]; then sed 's/^/pending	/' "$D/pending"; fi
  fi
fi
# Also what a failed first run has left, and a removal that was killed.
if [ -e "$D/forget" ] || { [ -d "$D" ] && [ ! -e "$D/packages" ]; }; then printf 'unconfirmed\n'; fi
printf 'end\n'
