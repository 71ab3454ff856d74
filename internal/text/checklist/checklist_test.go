package checklist

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
)

var examples = []Check{
	{"environment", OK, "workflow default/job7", ""},
	{"socket", Warn, "/var/run/nnf-dm.sock: a text that is long enough for more than one line of a small terminal", "a hint that is also long enough for more than one line of a small terminal"},
	{"version", Fail, "\x1b[31mred\nline", "run \u202ethis"},
	{"limits", Skip, "", "wait"},
}

func TestChecks(t *testing.T) {
	var b bytes.Buffer
	if err := Checks(&b, examples); err != nil {
		t.Fatal(err)
	}
	const want = `OK    environment  workflow default/job7
WARN  socket       /var/run/nnf-dm.sock: a text that is long enough for more
                   than one line of a small terminal
                   hint: a hint that is also long enough for more than one line
                         of a small terminal
FAIL  version      \x1b[31mred\nline
                   hint: run \u202ethis
SKIP  limits
                   hint: wait
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 81 {
			t.Errorf("wider than 80 columns: %q", line)
		}
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := JSON(&b, "nnf-dmctl", examples); err != nil {
		t.Fatal(err)
	}
	schema.Check(t, "doctor", b.Bytes())
	var d Document
	if err := json.Unmarshal(b.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if want := (Document{Version: 1, Program: "nnf-dmctl", Checks: examples}); !reflect.DeepEqual(d, want) {
		t.Errorf("%+v", d)
	}
	if strings.Contains(b.String(), "\x1b") || strings.Contains(b.String(), "\u202e") {
		t.Errorf("unsafe for terminals: %q", b.String())
	}
	b.Reset()
	if err := JSON(&b, "nnf-dmctl", nil); err != nil || !strings.Contains(b.String(), `"checks": []`) {
		t.Errorf("%s %v", b.String(), err)
	}
	schema.Check(t, "doctor", b.Bytes())
}

// A text of any length takes a bounded part of the output.
func TestLongText(t *testing.T) {
	list := []Check{{"mount", Fail, strings.Repeat("x\x00", 1<<20), strings.Repeat("y ", 1<<20)}}
	for name, print := range map[string]func(*bytes.Buffer) error{
		"text": func(b *bytes.Buffer) error { return Checks(b, list) },
		"JSON": func(b *bytes.Buffer) error { return JSON(b, "nnf-dmctl", list) },
	} {
		var b bytes.Buffer
		if err := print(&b); err != nil || b.Len() > 12*maxText {
			t.Errorf("%s: %d bytes, %v", name, b.Len(), err)
		}
	}
}

func TestFailed(t *testing.T) {
	if Failed(nil) || Failed([]Check{{State: OK}, {State: Warn}, {State: Skip}}) || !Failed([]Check{{State: Fail}, {State: OK}}) {
		t.Error("only the state fail is a failure")
	}
}
