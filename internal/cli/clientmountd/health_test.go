package clientmountd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// replaced makes the commands read a document.
func replaced(t *testing.T, f func(string) (*mountstate.Mounts, error)) {
	asRoot(t)
	before := read
	t.Cleanup(func() { read = before })
	read = f
}

func run(args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	code = Tools.Run(context.Background(), cli.Process{Stdout: &stdout, Stderr: &stderr}, args)
	return code, stdout.String(), stderr.String()
}

func TestHealth(t *testing.T) {
	doc := &mountstate.Mounts{Node: "compute-07", Time: time.Now(), Daemon: mountstate.Daemon{Running: true, API: mountstate.APIConnected}}
	replaced(t, func(string) (*mountstate.Mounts, error) { return doc, nil })
	busy := mountstate.Mount{Path: "/mnt/nnf/b", State: mountstate.Busy, Phase: mountstate.PhaseUnmount, Since: doc.Time.Add(-30 * time.Minute)}
	orphan := mountstate.Mount{Path: "/mnt/nnf/o", ClientMount: "o", State: mountstate.Orphan, Since: doc.Time.Add(-3 * time.Hour)}
	for _, tt := range []struct {
		args   string
		mounts []mountstate.Mount
		code   int
		line   string
	}{
		{"", nil, 0, ""},
		{"", []mountstate.Mount{busy}, 1, "unmount of /mnt/nnf/b busy for 30m: attempts fail\n"},
		{"--grace-busy=1h", []mountstate.Mount{busy}, 0, ""},
		{"--grace-busy=30m", []mountstate.Mount{busy}, 1, "unmount of /mnt/nnf/b busy for 30m: attempts fail\n"},
		{"--drain-only", []mountstate.Mount{busy}, 0, ""},
		{"--drain-only", []mountstate.Mount{busy, orphan}, 1, "mount of /mnt/nnf/o orphaned for 3h: ClientMount o no longer exists\n"},
		{"", []mountstate.Mount{busy, orphan}, 1, "mount of /mnt/nnf/o orphaned for 3h: ClientMount o no longer exists; and 1 more\n"},
	} {
		doc.Mounts = tt.mounts
		args := append([]string{"health", "--config=/dev/null"}, strings.Fields(tt.args)...)
		if code, out, errs := run(args...); code != tt.code || out != tt.line || errs != "" {
			t.Errorf("%q: exit code %d, %q, standard error %q; want %d, %q", tt.args, code, out, errs, tt.code, tt.line)
		}
		code, out, errs := run(append(args, "-o", "json")...)
		h, err := mountstate.ParseHealth([]byte(out))
		if err != nil || code != tt.code || errs != "" || (h.Verdict == mountstate.VerdictOK) != (code == 0) || h.Line != strings.TrimSpace(tt.line) {
			t.Errorf("%q: exit code %d, %v, standard error %q\n%s", tt.args, code, err, errs, out)
		}
	}
}

// cannotTell checks that health ends with 3, prints an error, and the document with -o json.
func cannotTell(t *testing.T, want string, args ...string) {
	t.Helper()
	args = append([]string{"health", "--config=/dev/null"}, args...)
	if code, out, errs := run(args...); code != ExitUnknown || out != "" || errs != "clientmountd: error: "+want+"\n" {
		t.Errorf("exit code %d, %q, standard error %q", code, out, errs)
	}
	code, out, errs := run(append(args, "--drain-only", "-o", "json")...)
	if h, err := mountstate.ParseHealth([]byte(out)); err != nil || code != ExitUnknown || h.Verdict != mountstate.VerdictUnknown || h.Error != want || errs == "" {
		t.Errorf("exit code %d, %v, standard error %q\n%s", code, err, errs, out)
	}
}

// A file system or process that does not answer delays the verdict by at most --timeout.
func TestHealthIsBounded(t *testing.T) {
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	replaced(t, func(string) (*mountstate.Mounts, error) { <-ended; return nil, nil })
	cannotTell(t, "the state of the node could not be read within 10ms", "--timeout=10ms")
	cannotTell(t, "the state of the node could not be read within 1s")
}

// The directory of the records is a file.
func TestHealthUnreadable(t *testing.T) {
	asRoot(t)
	runtime := t.TempDir()
	dir := clientmount.RecordsDirectory(runtime)
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := os.ReadDir(dir)
	cannotTell(t, "records cannot be read: "+err.Error(), "--runtime-directory="+runtime)
}

// A record of a newer version may have mounts: the node needs a drain.
func TestHealthOfNewerRecord(t *testing.T) {
	asRoot(t)
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	if err := open(t, runtime).Save(&clientmount.Record{Version: 99, UID: "newer"}); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := run("health", "--config=/dev/null", "--drain-only", "--runtime-directory="+runtime); code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "newer.json has version 99") {
		t.Errorf("exit code %d, %q", code, out)
	}
}

func TestHealthUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--grace-busy=-1s": "--grace-busy must not be negative",
		"--timeout=-1s":    "--timeout must not be negative",
		"--grace-busi=1s":  "did you mean --grace-busy?",
		"more":             "unexpected argument",
	} {
		if code, out, errs := run("health", args); code != 2 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %q %q", args, code, out, errs)
		}
	}
}
