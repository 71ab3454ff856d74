package command

import (
	"context"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/usage"
)

// verb is a word about the service. Only install takes arguments, those of the
// daemon: a unit with flags that the daemon does not know would never start.
func (v *Invocation) verb(ctx context.Context, word string) int {
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
