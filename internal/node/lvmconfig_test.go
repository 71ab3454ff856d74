package node

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The file is the output of LVM 2.03.16 of Debian 12 with its default configuration.
func TestLVMSettings(t *testing.T) {
	out, err := os.ReadFile("testdata/lvm/lvmconfig-2.03.16")
	must(t, err)
	s, err := ParseLVMSettings(string(out))
	must(t, err)
	for name, want := range map[string][]string{
		"report/prefixes": {"0"}, "log/prefix": {"  "}, "devices/filter": {"a|.*|"}, "log/journal": nil, "devices/scan": {"/dev"},
		"global/cache_check_options": {"-q", "--clear-needs-check-flag"}, "activation/volume_list": nil, "report/output_format": {"basic"},
	} {
		if got := s[name]; !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(s) < 150 || !s.On("report/buffered") || s.On("report/prefixes") || s.On("nothing") || s.Get("global/etc") != "/etc" {
		t.Errorf("%d settings: %v", len(s), s)
	}
}

func TestLVMValue(t *testing.T) {
	for value, want := range map[string][]string{
		`1`: {"1"}, `"x"`: {"x"}, `""`: {""}, `[]`: nil, ` [ "a|x,]|" , "r|\"\\.*|" ] `: {"a|x,]|", `r|"\.*|`}, `[1,2]`: {"1", "2"},
	} {
		if got, err := parseLVMValue(value); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s is %q (%v), want %q", value, got, err, want)
		}
	}
	for _, value := range []string{`"x`, `["x"`, `["x`, `"\`} {
		if got, err := parseLVMValue(value); err == nil {
			t.Errorf("%s is %q", value, got)
		}
	}
	for _, out := range []string{"x=1\n", "report {\n\tprefixes\n", "report {\n\tx=\"\n}\n"} {
		if s, err := ParseLVMSettings(out); err == nil {
			t.Errorf("%q is %v", out, s)
		}
	}
}

// The same results as those of vgs of LVM 2.03.16 for a loop device.
func TestLVMAccepts(t *testing.T) {
	names := []string{"/dev/loop0", "/dev/disk/by-id/other"}
	for _, tt := range []struct {
		filter []string
		want   bool
	}{
		{nil, true},
		{[]string{"a|.*|"}, true},
		{[]string{"r|loop|"}, false},
		{[]string{"a|^/dev/loop[0-9]$|", "r|.*|"}, true},
		{[]string{"a|/dev/nvme.*|", "r|.*|"}, false},
		{[]string{"r|/dev/loop.*|", "a|/dev/nvme.*|"}, false},
		{[]string{"r/.*/"}, false},
		{[]string{"r(.*)"}, false},
		{[]string{"a/loop/", "r/.*/"}, true},
		{[]string{"r|^loop|"}, true},
		{[]string{"a|sd[a-z]|"}, true},
		{[]string{"r#/dev/lo+p#"}, false},
		{[]string{"r|(loop|sd)|"}, false},
		{[]string{"r|/dev/loop|", "a|by-id|"}, true}, // one name is enough
	} {
		if got, err := LVMAccepts(tt.filter, names); err != nil || got != tt.want {
			t.Errorf("%q: %v, %v", tt.filter, got, err)
		}
	}
	for _, bad := range []string{"loop", "a", "x|y|", "a|y", "a|(|"} {
		if _, err := LVMAccepts([]string{bad}, names); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestLVMSettingsHangs(t *testing.T) {
	n := &Node{Exec: runs(func(_ context.Context, c Command) (Result, error) {
		if c.Argv[0] != "lvmconfig" || c.Timeout != time.Second {
			t.Errorf("%+v", c)
		}
		return Result{}, &CommandError{Line: c.String(), Err: errSurvived, TimedOut: true, PID: 7}
	})}
	if s, err := n.LVMSettings(t.Context(), time.Second); err == nil {
		t.Errorf("%v", s)
	}
}

func TestAllLVs(t *testing.T) {
	f := &fake{answers: map[string]string{strings.TrimSuffix(lvsLine, " --select vg_name=v_0"): lvsOut}}
	lvs, err := (&Node{Exec: f}).AllLVs(t.Context(), time.Minute)
	if err != nil || len(lvs) < 3 {
		t.Errorf("%v, %v", lvs, err)
	}
}
