package target

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// ask installs a fake clientmountd with this body and asks it.
func ask(t *testing.T, body string, arguments ...string) (*Answer, error) {
	t.Helper()
	s := newTestNode(t)
	s.Put("usr/bin/clientmountd", "#!/bin/sh\n"+body, 0o755)
	return Ask(t.Context(), s.shell, s.Name, arguments...)
}

// The output, the exit code and the first message arrive; arguments are words, never code.
func TestAsk(t *testing.T) {
	a, err := ask(t, "printf '%s|' \"$@\"; echo; echo first >&2; echo second >&2; exit 3", "timeline", "--workflow", "a b;$(touch x)`touch y`'\"\\", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "timeline|--workflow|a b;$(touch x)`touch y`'\"\\||\n"; string(a.Output) != want || a.Code != 3 || a.Message != "first" {
		t.Errorf("%+v, output %q, want %q", a, a.Output, want)
	}
	a, err = ask(t, "")
	if err != nil || len(a.Output) != 0 || a.Code != 0 || a.Message != "" {
		t.Errorf("%+v %v", a, err)
	}
}

func TestAskErrors(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{
		"older version": {"echo 'unknown command' >&2; exit 2", "this version of clientmountd does not have the command"},
		"endless":       {"exec yes", "the output of clientmountd has more than 512 KiB"},
		"binary":        {"head -c 600000 /dev/zero", "the output of clientmountd has more than 512 KiB"},
		"killed":        {"exit 137", "clientmountd did not finish within its time limit"},
		"timeout":       {"exit 124", "clientmountd did not finish within its time limit"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ask(t, tt.body); err == nil || err.Error() != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
	s := newTestNode(t)
	if _, err := Ask(t.Context(), s.shell, s.Name, "timeline"); err == nil || err.Error() != "clientmountd is not installed" {
		t.Errorf("%v", err)
	}
	s.Fault("dead")
	if _, err := Ask(t.Context(), s.shell, s.Name, "timeline"); err == nil || !strings.HasPrefix(err.Error(), "not reachable") {
		t.Errorf("%v", err)
	}
}

// A long output and endless messages arrive within their bounds.
func TestAskIsBounded(t *testing.T) {
	a, err := ask(t, "head -c 524288 /dev/zero | tr '\\0' x; yes 1234567 | head -c 100000 >&2")
	if err != nil || len(a.Output) != maxOutput || a.Code != 0 || len(a.Message) > 2048 {
		t.Errorf("%v", err)
	}
	for _, answer := range []string{"nnf-deploy\treport\t1\noutput\t!\nmessages\tMA==\nend\n", "nnf-deploy\treport\t1\noutput\t\nmessages\tWA==\nend\n", "nnf-deploy\treport\t1\nend\n"} {
		if a, err := parseAnswer(strings.NewReader(answer)); err == nil {
			t.Errorf("%q: %+v", answer, a)
		}
	}
}

// tarball returns a bundle with these entries.
func tarball(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range entries {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func regular(name string, size int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600}
}

// askBundle installs a fake clientmountd that writes this bundle, unless body exits before.
func askBundle(t *testing.T, bundle []byte, body string) (n *testNode, a *Answer, got []byte, err error) {
	t.Helper()
	n = newTestNode(t)
	n.Put("run/fake/bundle", string(bundle), 0o600)
	n.Put("usr/bin/clientmountd", "#!/bin/sh\n"+body+"\n[ \"$3 $4\" = 'json --bundle' ] && [ ! -e \"$5\" ] && cat \"$R/run/fake/bundle\" >\"$5\" || exit 9\necho checks; exit 1\n", 0o755)
	a, got, err = AskBundle(t.Context(), n.shell, n.Name, "doctor", "-o", "json")
	for path := range n.Files("run", "tmp", "var") {
		if strings.Contains(path, "nnf-deploy") {
			t.Errorf("left on the node: %s", path)
		}
	}
	return n, a, got, err
}

// A bundle of several lines arrives as it is, and nothing is left on the node.
func TestAskBundle(t *testing.T) {
	random := make([]byte, 200_000)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	want := tarball(t, regular("clientmountd-doctor/CONTENTS", 10), regular("clientmountd-doctor/a/"+hex.EncodeToString(random[:20]), 3<<20))
	// Random data in a field of gzip makes the bundle long.
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Extra = random[:60_000]
	plain, err := gzip.NewReader(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	_, a, got, err := askBundle(t, b.Bytes(), "")
	if err != nil || a.Code != 1 || string(a.Output) != "checks\n" || !bytes.Equal(got, b.Bytes()) || len(got) < 60_000 {
		t.Fatalf("%d of %d bytes, %+v, %v", len(got), b.Len(), a, err)
	}
}

// A node can send anything: only an archive of regular files in one directory is accepted.
func TestAskBundleRefuses(t *testing.T) {
	good := tarball(t, regular("clientmountd-doctor/x", 10))
	many := make([]tar.Header, bundleFiles+1)
	for i := range many {
		many[i] = regular("clientmountd-doctor/x", 0)
	}
	for name, tt := range map[string]struct {
		bundle     []byte
		body, want string
	}{
		"not written":   {nil, "echo 'clientmountd: error: full' >&2; exit 1", "clientmountd has written no bundle: clientmountd: error: full"},
		"older version": {nil, "exit 2", "this version of clientmountd does not have the command"},
		"not gzip":      {[]byte("hello, this is no archive"), "", "its bundle is not valid: gzip: invalid header"},
		"truncated":     {good[:len(good)-4], "", "its bundle is not valid: unexpected EOF"},
		"empty":         {tarball(t), "", "its bundle is not valid: it is empty"},
		"absolute":      {tarball(t, regular("/etc/passwd", 1)), "", `its bundle is not valid: it has the entry "/etc/passwd"`},
		"outside":       {tarball(t, regular("clientmountd-doctor/../../x", 1)), "", `its bundle is not valid: it has the entry "clientmountd-doctor/../../x"`},
		"terminal":      {tarball(t, regular("clientmountd-doctor/\x1b[2J", 1)), "", `its bundle is not valid: it has the entry "clientmountd-doctor/\x1b[2J"`},
		"link":          {tarball(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "clientmountd-doctor/x", Linkname: "/etc"}), "", `its bundle is not valid: it has the entry "clientmountd-doctor/x"`},
		"bomb":          {tarball(t, regular("clientmountd-doctor/x", bundleBytes+1)), "", "its bundle is not valid: it has more than 1000 files or 64 MiB"},
		"many files":    {tarball(t, many...), "", "its bundle is not valid: it has more than 1000 files or 64 MiB"},
		"too large":     {make([]byte, maxBundle+1), "", "its bundle has more than 8 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, got, err := askBundle(t, tt.bundle, tt.body); err == nil || err.Error() != tt.want || got != nil {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
	if err := checkBundle(good, sum(good[1:])); err == nil || err.Error() != "it arrived damaged" {
		t.Error(err)
	}
}

// If the connection breaks while the command runs, nothing is left on the node.
func TestAskBundleIsStopped(t *testing.T) {
	s := newTestNode(t)
	s.Put("usr/bin/clientmountd", "#!/bin/sh\n: >\"$R/run/fake/runs\"; until [ -e \"$R/run/fake/goes\" ]; do /bin/sleep 0.05; done\n", 0o755)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, _, err := AskBundle(ctx, s.shell, s.Name, "doctor")
		ended <- err
	}()
	left := func() []string {
		list, err := filepath.Glob(filepath.Join(s.Root, "run/nnf-deploy-*"))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	wait.Until(t, "the command to run", func() bool { return s.Get("run/fake/runs") == "" && len(left()) == 1 })
	cancel()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	s.Put("run/fake/goes", "", 0o600)
	wait.Until(t, "the directory to be removed", func() bool { return len(left()) == 0 })
}
