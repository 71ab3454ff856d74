# bash completion for @PROGRAM@, written by make generate.
# shellcheck shell=bash

@FUNCTION@() {
  local flags='@FLAGS@'
  local cur prev first='' second='' assigned='' words='' kind=''
  cur=${COMP_WORDS[COMP_CWORD]}
  prev=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  if ((COMP_CWORD > 1)); then first=${COMP_WORDS[1]}; fi
  if ((COMP_CWORD > 2)); then second=${COMP_WORDS[2]}; fi

  @TOOLS@
  # bash makes three words of --flag=value, and two of --flag=.
  if [[ $cur == '=' ]]; then
    assigned=yes cur=''
  elif [[ $prev == '=' ]]; then
    assigned=yes prev=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  # One dash does as well as two.
  if [[ $prev == -[!-]* ]]; then prev=-$prev; fi

  case $prev in
    @VALUES@
  esac
  case $kind in
    file)
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return
      ;;
    directory)
      mapfile -t COMPREPLY < <(compgen -d -- "$cur")
      return
      ;;
  esac
  if [[ -n $words ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    return
  fi
  if [[ -n $assigned ]]; then return; fi

  case $first in
    '')
      words='@WORDS@'
      if [[ $cur == -* ]]; then words=$flags; fi
      ;;
    -*) words=$flags ;;
    @COMMANDS@
  esac
  if [[ $cur == -[!-]* ]]; then cur=-$cur; fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -o filenames -F @FUNCTION@ @PROGRAM@
