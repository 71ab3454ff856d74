package clientmountd

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

// examine runs the sub-command on this machine, whatever its state is.
func examine(t *testing.T, signals chan os.Signal, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	p := cli.Process{Environ: []string{"PATH=/usr/bin:/bin", "NODE_NAME=compute-01", "SITE=MARKERENVIRONMENT"}, Stdout: &out, Stderr: &errs, Signals: signals}
	code = Tools.Run(t.Context(), p, append([]string{"doctor", "--config", "/dev/null", "--runtime-directory", t.TempDir()}, args...))
	return out.String(), errs.String(), code
}

func TestDoctor(t *testing.T) {
	asRoot(t)
	out, errs, code := examine(t, nil, "--offline", "-o", "json")
	var doc checklist.Document
	if err := json.Unmarshal([]byte(out), &doc); err != nil || errs != "" || doc.Program != Name {
		t.Fatalf("%v\n%s\n%s", err, out, errs)
	}
	schema.Check(t, "doctor", []byte(out))
	if want := map[bool]int{false: cli.ExitOK, true: cli.ExitFailed}[checklist.Failed(doc.Checks)]; code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
	for _, c := range doc.Checks {
		if c.Name == "tcp" && (c.State != checklist.Skip || c.Text != "--offline") {
			t.Errorf("%+v", c)
		}
	}
	if out, _, _ := examine(t, nil, "--offline"); !strings.Contains(out, "SKIP  tcp             --offline\n") {
		t.Errorf("as text: %s", out)
	}
}

func TestDoctorBundle(t *testing.T) {
	asRoot(t)
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	out, errs, code := examine(t, nil, "--offline", "--bundle", file)
	if code > cli.ExitFailed || !strings.Contains(out, "SKIP  tcp ") || !strings.Contains(errs, "  doctor.txt\n") || !strings.Contains(errs, "only root can read it") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, errs, code = examine(t, nil, "--offline", "--bundle", file)
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) || code != cli.ExitFailed || !strings.Contains(errs, "hint: choose another name") {
		t.Errorf("an existing file: %v, %d\n%s", err, code, errs)
	}
}

func TestDoctorInterrupted(t *testing.T) {
	asRoot(t)
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGINT
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	out, errs, code := examine(t, signals, "--offline", "--bundle", file)
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) || out != "" || code != cli.ExitSignal+2 {
		t.Errorf("%v, %d\n%s\n%s", err, code, out, errs)
	}
}

func TestDoctorUsage(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"argument"}, {"-o", "xml"}, {"--bundle", "--offline"}} {
		if out, errs, code := examine(t, nil, args...); code != cli.ExitUsage || out != "" || !strings.Contains(errs, "hint: see clientmountd doctor --help") {
			t.Errorf("%q: %d\n%s\n%s", args, code, out, errs)
		}
	}
}
