# fish completion for nnf-dmctl.

function __nnf_dmctl_complete
    set -l tokens (commandline -opc)
    set -l current (commandline -ct)
    set -l program $tokens[1]
    set -e tokens[1]
    set -l lines ($program __complete fish $tokens "$current" 2>/dev/null)
    set -l kind $lines[1]
    set -e lines[1]
    # fish completes the whole word of --flag=value.
    set -l flag (string match -r -- '^--[^=]*=' "$current")
    set -l value (string replace -- "$flag" '' "$current")
    switch "$kind"
        case files
            set lines (__fish_complete_path "$value")
        case directories
            set lines (__fish_complete_directories "$value")
    end
    for line in $lines
        echo "$flag$line"
    end
end

complete -c nnf-dmctl -f -a '(__nnf_dmctl_complete)'
