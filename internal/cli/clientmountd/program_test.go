package clientmountd

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
)

// Without root, each sub-command prints an error and the next action, and nothing else.
func TestNeedRoot(t *testing.T) {
	before := euid
	t.Cleanup(func() { euid = before })
	euid = func() int { return 1000 }
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"mounts":                            {cli.ExitFailed, readRecords},
		"timeline":                          {cli.ExitFailed, readRecords},
		"health":                            {ExitUnknown, readRecords},
		"wait --workflow=job --for=mounted": {ExitUnknown, readRecords},
		"doctor --offline":                  {cli.ExitFailed, "check the node"},
	} {
		text := "clientmountd: error: only root can " + want.text + "\nclientmountd: hint: run the command as root\n"
		if code, out, errs := run(strings.Fields(args)...); code != want.code || out != "" || errs != text {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out, errs)
		}
	}
}
