package units

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
)

// script runs a script of packaging/examples. In its PATH are only stand-ins:
// a systemctl that notes its calls, and answers as the environment says.
func script(t *testing.T, path string, env ...string) (calls, stderr string, code int) {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		cannot(t, err.Error())
	}
	bin := t.TempDir()
	for name, body := range map[string]string{
		"systemctl": `echo "$*" >>"$BIN/calls"; case $1 in is-active) echo "$STATE"; [ "$STATE" = active ];; *) exit "${EXIT:-0}";; esac`,
		"timeout":   `shift; "$@"`,
	} {
		if err := executable.Write(filepath.Join(bin, name), []byte("#!"+bash+"\n"+body+"\n")); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bash, filepath.Join(root, path))
	cmd.Env = append([]string{"PATH=" + bin, "BIN=" + bin}, env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	noted, err := os.ReadFile(filepath.Join(bin, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(noted)), errs.String(), cmd.ProcessState.ExitCode()
}

// A prolog that cannot stop the daemon fails no job; an epilog that cannot start
// it drains the node, because what the job had mounted stays.
func TestPrologAndEpilog(t *testing.T) {
	const stop, start, look = "stop clientmountd.service", "start clientmountd.service", "\nis-active clientmountd.service"
	for wlm, job := range map[string]string{"slurm": "SLURM_JOB_ID=4711", "flux": "FLUX_JOB_ID=4711"} {
		for _, c := range []struct {
			script string
			env    []string
			calls  string
			code   int
			says   string
		}{
			{"prolog", nil, stop, 0, ""},
			{"prolog", []string{"EXIT=1"}, stop, 0, "prolog of job 4711: clientmountd was not stopped"},
			{"epilog", nil, start, 0, ""},
			{"epilog", []string{"EXIT=1", "STATE=failed"}, start + look, 1, "epilog of job 4711: clientmountd does not start"},
			{"epilog", []string{"EXIT=124", "STATE=activating"}, start + look, 0, ""}, // the API server is away
			{"epilog", []string{"EXIT=1", "STATE=active"}, start + look, 0, ""},
		} {
			calls, stderr, code := script(t, "packaging/examples/"+wlm+"/"+c.script+".sh", append(c.env, job)...)
			if calls != c.calls || code != c.code || !strings.Contains(stderr, c.says) || c.says == "" && stderr != "" {
				t.Errorf("%s %s %q: called %q, exit %d, said %q", wlm, c.script, c.env, calls, code, stderr)
			}
		}
	}
}

// They are optional, and say so.
func TestPrologSaysThatItIsNotNeeded(t *testing.T) {
	for _, file := range tree(t, "packaging/examples") {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "You do not need this") && !strings.Contains(string(text), "why neither is needed") {
			t.Errorf("%s does not say so", file)
		}
	}
}
