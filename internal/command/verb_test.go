package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/systemd/fakesystemd"
)

// The arguments of install are those of the daemon, in whatever form; the file
// and the environment of the moment have nothing to do with them.
func TestVerbs(t *testing.T) {
	for args, want := range map[string]string{
		"install":                              "ExecStart=/bin/thing\n",
		"install --level=7":                    "ExecStart=/bin/thing --level=7\n",
		"install -level 7 --config /none/such": "ExecStart=/bin/thing -level 7 --config /none/such\n",
	} {
		p := newThing(t)
		root := t.TempDir()
		p.Service = systemd.Service{
			Name: "thing", Description: "The Thing", Units: []systemd.Unit{{Name: "thing.service", Text: "[Service]\nExecStart=/usr/bin/thing\n"}},
			Machine: systemd.Machine{
				Root: root, Run: fakesystemd.Manager{Root: root}.Run, UID: func() int { return 0 },
				Program: func(name string) (string, error) { return "/bin/" + name, nil },
			},
		}
		if err := os.WriteFile(p.Table().File, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := p.call(strings.Fields(args)...)
		if code != 0 || p.runs != 0 || stderr != "" || !strings.HasPrefix(stdout, "Install The Thing:\t\t\t\t\t[  OK  ]\n") {
			t.Errorf("%q: %d, %d runs\n%s%s", args, code, p.runs, stdout, stderr)
		}
		if text, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/thing.service")); err != nil || !strings.HasSuffix(string(text), want) {
			t.Errorf("%q: %v\n%s", args, err, text)
		}
		if code, _, stderr := p.call("status"); code != 1 || !strings.Contains(stderr, "systemd does not run here") {
			t.Errorf("status: %d %s", code, stderr)
		}
	}
}
