package command

import (
	"context"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// verb is a word about the service. Only install takes arguments, those of the
// daemon: a unit with flags that the daemon does not know would never start.
func (v *Invocation) verb(ctx context.Context, word string) int {
	if word == "status" {
		format, err := v.output()
		switch {
		case err != nil:
			return v.Result(ctx, err)
		case format == "json":
			return v.p.Service.StatusJSON(ctx, v.stdout, v.stderr)
		}
	}
	rest, err := config.CheckArgs(v.p.Table(), v.args)
	switch {
	case err != nil:
		return v.Result(ctx, err)
	case len(rest) > 0:
		return v.Result(ctx, usage.Errorf("unexpected argument %.80q", rest[0]))
	case word != "install" && len(v.args) > 0:
		return v.Result(ctx, usage.Errorf("%s takes no arguments", word))
	}
	return v.p.Service.Do(ctx, word, v.args, v.environ, v.stdout, v.stderr)
}

// output takes -o FORMAT from the arguments of status; text is what it prints
// without it.
func (v *Invocation) output() (format string, err error) {
	if len(v.args) == 0 {
		return "text", nil
	}
	for _, flag := range []string{"-o", "--output"} {
		if v.args[0] == flag && len(v.args) == 2 {
			format = v.args[1]
		} else if value, ok := strings.CutPrefix(v.args[0], flag+"="); ok && len(v.args) == 1 {
			format = value
		} else if v.args[0] == flag && len(v.args) == 1 {
			return "", usage.Errorf("flag -o needs a value: json or text")
		}
	}
	switch format {
	case "":
		return "text", nil // other arguments are refused as those of every verb
	case "json", "text":
		v.args = nil
		return format, nil
	}
	return "", usage.Errorf("-o is json or text, not %.80q", format)
}
