package systemd

import (
	"strings"
	"testing"
)

// The arguments stand behind those of the shipped unit, and nothing else of it
// changes.
func TestRender(t *testing.T) {
	s := Service{Name: "thing"}
	for _, tt := range []struct{ shipped, args, want string }{
		{"/usr/bin/thing", "", "/opt/thing"},
		{"/usr/bin/thing", "--a --b=%c", "/opt/thing --a --b=%%c"},
		{"/usr/bin/thing --own $X", "", "/opt/thing --own $X"},
		{"/usr/bin/thing --own $X", "--a", "/opt/thing --own $X --a"},
	} {
		unit := Unit{"thing.service", "[Service]\nType=notify\nExecStart=" + tt.shipped + "\nExecReload=/bin/kill\n"}
		have, err := s.render(unit, "/opt/thing", strings.Fields(tt.args))
		if want := s.written() + "[Service]\nType=notify\nExecStart=" + tt.want + "\nExecReload=/bin/kill\n"; err != nil || have != want {
			t.Errorf("%+v: %v\n%s", tt, err, have)
		}
	}
	for _, text := range []string{"[Service]\n", "[Service]\nExecStart=/a\nExecStart=/b\n", "[Service]\nExecStart=/a \\\n  --b\n"} {
		if have, err := s.render(Unit{"thing.service", text}, "/opt/thing", nil); err == nil || !strings.Contains(err.Error(), "defect") {
			t.Errorf("%q became %q: %v", text, have, err)
		}
	}
}
