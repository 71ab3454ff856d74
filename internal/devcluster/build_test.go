package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// stubGo replaces the go command. It records its builds and takes some time.
const stubGo = `#!/bin/sh
case $1 in
env) echo go1.0 ;;
build)
	echo build >>"$STUB_LOG"
	sleep 0.3
	while [ "$1" != -o ]; do shift; done
	echo 'binary' >"$2"
	chmod +x "$2"
	exit "${STUB_EXIT:-0}" ;;
esac
`

// sandbox is a directory with build.sh and one source file of each program.
type sandbox struct {
	dir string
	env []string
}

func newSandbox(t *testing.T) sandbox {
	t.Helper()
	w := sandbox{dir: t.TempDir()}
	script, err := os.ReadFile("build.sh")
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "src/build.sh", string(script))
	w.write(t, "src/a.go", "package a")
	for _, file := range []string{"kubectl/main.go", "go.mod", "go.sum"} {
		w.write(t, "src/"+file, "")
	}
	w.write(t, "bin/go", stubGo)
	w.env = append(os.Environ(), "PATH="+w.dir+"/bin:"+os.Getenv("PATH"), "XDG_CACHE_HOME="+w.dir+"/cache", "STUB_LOG="+w.dir+"/log")
	return w
}

func (w sandbox) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (w sandbox) run(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(w.dir, "src", "build.sh"), args...)
	cmd.Env = append(w.env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w sandbox) builds(t *testing.T) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(w.dir, "log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(log), "build\n")
}

func (w sandbox) name(t *testing.T) string {
	t.Helper()
	out, err := w.run(t, nil, "--name")
	if err != nil {
		t.Fatal(err, out)
	}
	return strings.TrimSpace(out)
}

func TestNameFollowsSources(t *testing.T) {
	w := newSandbox(t)
	last := w.name(t)
	if !strings.HasPrefix(last, filepath.Join(w.dir, "cache", "compute-daemons", "devcluster-")) {
		t.Fatalf("name %q", last)
	}
	for _, step := range []struct {
		file, text string
		changes    bool
	}{
		{"src/a_test.go", "package a", false},
		{"src/notes.txt", "x", false},
		{"src/kubectl/main.go", "package main", false},
		{"src/a.go", "package b", true},
		{"src/sub/b.go", "package b", true},
		{"src/crds/x.yaml", "a: b", true},
		{"src/go.mod", "module x", true},
		{"src/go.sum", "x", true},
		{"bin/go", strings.Replace(stubGo, "go1.0", "go1.1", 1), true},
		{"src/a.go", "package b", false},
	} {
		w.write(t, step.file, step.text)
		now := w.name(t)
		if (now != last) != step.changes {
			t.Errorf("%s: name %s after %s; want a change: %v", step.file, now, last, step.changes)
		}
		last = now
	}
}

func TestConcurrentBuildsCompileOnce(t *testing.T) {
	w := newSandbox(t)
	var wg sync.WaitGroup
	for _, out := range []string{"out/one", "out/two", "out/three"} {
		wg.Go(func() {
			path := filepath.Join(w.dir, out)
			if text, err := w.run(t, nil, path); err != nil {
				t.Errorf("%v: %s", err, text)
			}
			for _, path := range []string{path, filepath.Join(filepath.Dir(path), "kubectl")} {
				if text, err := os.ReadFile(path); err != nil || string(text) != "binary\n" {
					t.Errorf("%s: %q, %v", path, text, err)
				}
			}
		})
	}
	wg.Wait()
	if n := w.builds(t); n != 2 {
		t.Errorf("%d builds, want one of each program", n)
	}
	out, err := w.run(t, nil, filepath.Join(w.dir, "out/one"))
	if err != nil || out != "" || w.builds(t) != 2 {
		t.Errorf("with existing binaries: %q, %v, %d builds; want no output", out, err, w.builds(t))
	}
	w.write(t, "src/kubectl/main.go", "package main")
	if out, err := w.run(t, nil, filepath.Join(w.dir, "out/one")); err != nil || w.builds(t) != 3 {
		t.Errorf("after a change of kubectl: %q, %v, %d builds; want one more", out, err, w.builds(t))
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	w := newSandbox(t)
	out, err := w.run(t, []string{"STUB_EXIT=1"}, filepath.Join(w.dir, "out"))
	if err == nil {
		t.Fatalf("no failure: %s", out)
	}
	if !strings.Contains(out, "4-5 minutes") {
		t.Errorf("the output lacks the duration: %q", out)
	}
	left, err := filepath.Glob(filepath.Join(w.dir, "cache", "compute-daemons", "devcluster-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if out, err := w.run(t, nil, filepath.Join(w.dir, "out")); err != nil {
		t.Errorf("the next build: %v: %s", err, out)
	}
}
