package systemd

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseUnit(t *testing.T) {
	const text = "# comment \\\n[Unit]\nDescription=A = B\n\n[Service]\nExecStart=/bin/x \\\n  # inside\n  --y \\\n  --z\n ; comment\nPrivateTmp = yes\nnonsense\n[Install\nA=b\\"
	var got []string
	for _, d := range ParseUnit("u", text) {
		got = append(got, d.Section+" "+d.String())
	}
	want := []string{"Unit u:3: Description=A = B", "Service u:6: ExecStart=/bin/x    --y    --z", "Service u:11: PrivateTmp=yes", `Service u:14: A=b\`}
	for i := range got { // white space is not significant here
		got[i] = fmt.Sprint(strings.Fields(got[i]))
	}
	for i := range want {
		want[i] = fmt.Sprint(strings.Fields(want[i]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("have %q\nwant %q", got, want)
	}
}

func TestHiding(t *testing.T) {
	for text, want := range map[string]string{
		"[Service]\nPrivateTmp=yes\n":                                        "[u:2: PrivateTmp=yes]",
		"[Service]\nPrivateTmp=yes\nPrivateTmp=no\n":                         "[]",
		"[Service]\nPrivateTmp=yes\nPrivateTmp=\n":                           "[]",
		"[Service]\nReadOnlyPaths=/a\nReadOnlyPaths=/b\nProtectHome=tmpfs\n": "[u:2: ReadOnlyPaths=/a u:3: ReadOnlyPaths=/b u:4: ProtectHome=tmpfs]",
		"[Service]\nReadOnlyPaths=/a\nReadOnlyPaths=\n":                      "[]",
		"[Service]\nUser=nobody\nUser=root\nNoNewPrivileges=yes\n":           "[]",
		"[Unit]\nPrivateTmp=yes\n":                                           "[]",
	} {
		if got := fmt.Sprint(HidingOf(ParseUnit("u", text))); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"11min": 11 * time.Minute, "1min 30s": 90 * time.Second, "90": 90 * time.Second, "infinity": -1, "1h 5ms": time.Hour + 5*time.Millisecond, "0": 0, "2d": 48 * time.Hour,
	} {
		if got, err := ParseSpan(text); err != nil || got != want {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1x", "min", "1e99s"} {
		if got, err := ParseSpan(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{"4G": 4 << 30, "4294967296": 4 << 30, "infinity": -1, "20M": 20 << 20, "0": 0} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1Q", "99999999999999999T", "50%"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestInspect(t *testing.T) {
	n := newNode(t)
	if i, err := n.Inspect(t.Context()); err == nil || i.Status == nil || i.Status.Service.Installed {
		t.Errorf("not installed: %+v, %v", i, err)
	}
	n.write(PackageDirectory+"/thing.service", "[Service]\nExecStart=/usr/bin/thing\n")
	n.write(PackageDirectory+"/thing.socket", socketText)
	n.write(UnitDirectory+"/thing.service", "[Service]\nExecStart=/opt/thing\nPrivateTmp=yes\n")
	i, err := n.Inspect(t.Context(), "LoadState")
	if err != nil || len(i.Hidden) != 1 || !i.Status.Service.Installed || i.Properties["LoadState"] != "loaded" {
		t.Errorf("%+v, %v", i, err)
	}
	if fmt.Sprint(HidingOf(i.Directives)) != "["+UnitDirectory+"/thing.service:3: PrivateTmp=yes]" {
		t.Errorf("%q of %q", i.Directives, i.Files)
	}
	n.Machine.UID = func() int { return 1 }
	if i, err := n.Inspect(t.Context()); err != ErrNotRoot || i.Status != nil {
		t.Errorf("not root: %+v, %v", i, err)
	}
}
