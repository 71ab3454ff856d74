package systemd

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// answer returns the parsed output of "status -o json".
func (n *node) answer(code int) *Status {
	n.Helper()
	var out, errs bytes.Buffer
	if got := n.StatusJSON(n.Context(), &out, &errs); got != code || (errs.Len() > 0) != (code != 0) {
		n.Errorf("code %d, want %d: %s", got, code, &errs)
	}
	s, err := ParseStatus(out.Bytes())
	if err != nil {
		n.Fatalf("%v\n%s", err, &out)
	}
	if log := n.systemd.Log(); len(log) > 0 {
		n.Errorf("it changed something: %q", log)
	}
	return s
}

func TestStatusJSON(t *testing.T) {
	n := newNode(t)
	n.Version = "v1.2.3"
	var start Start
	n.Describe = func(s Start, doc *Status) { start = s; doc.Mounts = &MountStatus{Count: 2} }
	s := n.answer(1)
	if s.Service.Installed || s.Service.Error != string(ErrNotInstalled) || len(s.Units) != 0 || s.Mounts.Count != 2 || s.Program != "thing" || s.ProgramVersion != "v1.2.3" || s.Version != 1 {
		t.Errorf("not installed: %+v", s)
	}
	n.write("usr/lib/systemd/system/thing.service", strings.Replace(serviceText, "ExecStart=/usr/bin/thing", "ExecStart=/usr/bin/thing --level 7", 1))
	n.write("usr/lib/systemd/system/thing.socket", socketText)
	s = n.answer(0)
	if !s.Service.Installed || s.Service.Enabled || s.Service.Active || s.Service.Ready || s.Service.PID != 0 || len(s.Units) != 2 || s.Units[1] != (UnitStatus{"thing.socket", "loaded", "inactive", "dead", "disabled", "success"}) {
		t.Errorf("stopped: %+v", s)
	}
	if !slices.Equal(start.Args, []string{"--level", "7"}) {
		t.Errorf("arguments of the next start: %q", start.Args)
	}
	n.must(n.systemd.SetActive("thing.service", "activating"))
	if s = n.answer(0); !s.Service.Active || s.Service.Ready || s.Service.PID != 4711 {
		t.Errorf("starting: %+v", s)
	}
	n.must(n.systemd.SetActive("thing.service", "active"))
	n.must(n.systemd.SetStatus("thing.service", "1 mount\x1b ready"))
	n.write("proc/4711/cmdline", "/usr/bin/thing\x00--config\x00/etc/a b\x00")
	n.write("proc/4711/environ", "A=b c\x00D=\x00")
	if s = n.answer(0); !s.Service.Active || !s.Service.Ready || s.Service.Status != "1 mount\x1b ready" {
		t.Errorf("running: %+v", s)
	}
	if !slices.Equal(start.Args, []string{"--config", "/etc/a b"}) || !slices.Equal(start.Environ, []string{"A=b c", "D="}) {
		t.Errorf("arguments and environment: %q", start)
	}
	n.must(os.RemoveAll(filepath.Join(n.root, "run/systemd/system")))
	if s = n.answer(1); s.Service.Error != "systemd is not running" || s.Mounts == nil {
		t.Errorf("without systemd: %+v", s)
	}
	n.Machine.UID = func() int { return 1000 }
	var out, errs bytes.Buffer
	if code := n.StatusJSON(t.Context(), &out, &errs); code != 1 || out.Len() > 0 || !strings.Contains(errs.String(), string(ErrNotRoot)) {
		t.Errorf("%d %s%s", code, &out, &errs)
	}
}

func TestParseStatus(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "not JSON",
		"Service (pid  7) is running...": "not JSON",
		"{}":                             "unsupported version 0",
		`{"version": 2, "mounts": []}`:   "unsupported version 2 (this program reads version 1)",
		`{"version": 1, "mounts": []}`:   "invalid document",
		`{"version": 1, "new": 7}`:       "",
	} {
		_, err := ParseStatus([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
