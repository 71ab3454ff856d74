package reference

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
)

func TestRecordTable(t *testing.T) {
	got := recordTable([]catalog.Kind{{Event: daemon.Event{ID: "0", Name: "e-e"}, Level: "info", What: "@A_B@ | more: ERROR.", Job: "See the record e-e.", Do: "Nothing."}})
	if want := "| `e-e` | `0` | info | `A_B` \\| more: `ERROR`. | See the record `e-e`. | Nothing. |\n"; !strings.HasSuffix(got, want) {
		t.Errorf("%s", got)
	}
}

func TestTableCells(t *testing.T) {
	want := "| a | b |\n| --- | --- |\n| x \\| y | |\n"
	if got := table([]string{"a", "b"}, [][]string{{"x | y", ""}}); got != want {
		t.Errorf("%q", got)
	}
}

func TestMark(t *testing.T) {
	for text, want := range map[string]string{
		"With --wait, or without it.":              "With `--wait`, or without it.",
		"Set mount.orphans = \"unmount\".":         "Set `mount.orphans = \"unmount\"`.",
		"ENVIRONMENT=kind, $HOME/.kube/config.":    "`ENVIRONMENT=kind`, `$HOME/.kube/config`.",
		"The run that wrote --results FILE.":       "The run that wrote `--results FILE`.",
		`For example "--chunksize=".`:              "For example `\"--chunksize=\"`.",
		"HOLDER_PID is 0; `HOLDER_PID` stays.":     "`HOLDER_PID` is 0; `HOLDER_PID` stays.",
		"Run systemctl cat clientmountd.":          "Run `systemctl cat clientmountd`.",
		"nnf-dm config dump shows every setting.":  "`nnf-dm config dump` shows every setting.",
		"Raise WatchdogSec= in a drop-in.":         "Raise `WatchdogSec=` in a drop-in.",
		"The directory (/run/clientmountd) stays.": "The directory (`/run/clientmountd`) stays.",
		"A MESSAGE_ID, and a number such as 4KiB.": "A `MESSAGE_ID`, and a number such as 4KiB.",
	} {
		if got := mark(text); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
