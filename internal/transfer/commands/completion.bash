# bash completion for nnf-dmctl.  shellcheck shell=bash

_nnf_dmctl() {
  local cur prev word command='' skip='' i flags='@FLAGS@'
  local -a ask=(nnf-dmctl) found=()
  cur=${COMP_WORDS[COMP_CWORD]}
  prev=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()

  # Which command is it, and whose copies?
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $skip in
      --socket | --workflow | -w | --namespace | -n) [[ $word == '=' ]] || ask+=("$skip" "$word") ;;
    esac
    if [[ $word == '=' ]]; then continue; fi
    if [[ -n $skip ]]; then
      skip=''
      continue
    fi
    case $word in
      @VALUES@) skip=$word ;;
      -*) ;;
      *) [[ -n $command ]] || command=$word ;;
    esac
  done

  if [[ $prev == '=' ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
  if [[ $cur == '=' ]]; then cur=''; prev=${COMP_WORDS[COMP_CWORD - 1]}; fi
  case $prev in
    --output | -o)
      mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur")
      return
      ;;
    --socket | --batch)
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return
      ;;
    @OTHERS@) return ;;
  esac

  case $command in
    @CASES@
  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    return
  fi
  case $command in
    '' | help) mapfile -t COMPREPLY < <(compgen -W '@COMMANDS@' -- "$cur") ;;
    completion) mapfile -t COMPREPLY < <(compgen -W 'bash' -- "$cur") ;;
    copy) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    @IDS@)
      mapfile -t found < <("${ask[@]}" list --quiet 2>/dev/null)
      mapfile -t COMPREPLY < <(compgen -W "${found[*]}" -- "$cur")
      ;;
  esac
}

complete -o filenames -F _nnf_dmctl nnf-dmctl
