# bash completion for @NAME@.  shellcheck shell=bash

_@FUNCTION@() {
  local cur=${COMP_WORDS[COMP_CWORD]} kind
  if [[ $cur == '=' ]]; then cur=''; fi
  COMPREPLY=()
  {
    read -r kind || return 0
    mapfile -t COMPREPLY
  } < <("${COMP_WORDS[0]}" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  case $kind in
    files) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    directories) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
  esac
}

complete -o filenames -F _@FUNCTION@ @NAME@
