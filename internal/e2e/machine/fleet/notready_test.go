package fleet

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// broken makes a release whose clientmountd ends as soon as it starts.
func (f *Fleet) broken() (packages []string) {
	f.t.Helper()
	_, newer := f.Releases() // its files are where they were
	work, out := filepath.Join(f.Dir, "broken"), filepath.Join(f.Dir, "broken-packages")
	if r := f.Run(nil, "cp", "-a", filepath.Dir(filepath.Dir(newer.Programs)), work); r.Code != 0 {
		f.t.Fatalf("%+v", r)
	}
	program := filepath.Join(work, "usr/bin/clientmountd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'out of order' >&2\nexit 3\n"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		f.t.Fatal(err)
	}
	args := []string{"--config", filepath.Join(f.repository(), "nfpm.yaml"), "rpm", "--root", work, out}
	cmd := f.Command(f.t.Context(), filepath.Join(f.repository(), "bin/packager"), append(args, daemons...)...)
	cmd.Env = append(cmd.Env, "RPM_VERSION=0.3.0", "RPM_RELEASE=1", "GOARCH="+runtime.GOARCH)
	if said, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("packager: %v: %s", err, said)
	}
	packages, err := filepath.Glob(filepath.Join(out, "*.rpm"))
	if err != nil || len(packages) != len(daemons) {
		f.t.Fatalf("the packages are %q, %v", packages, err)
	}
	return packages
}

// A release that does not start goes no further than to the nodes that try it,
// and those get back what they had.
func TestReleaseThatDoesNotStart(t *testing.T) {
	f := New(t, 3)
	older, newer := f.Releases()
	f.Distribution(f.Nodes...)
	expect(t, f.Ask("install", older.PackageArguments()...), 0, all(f.Nodes, "ok"))
	var bad []string
	for _, p := range f.broken() {
		bad = append(bad, "--rpm", p)
	}
	tried, left := f.Nodes[0], f.Nodes[1:]
	before := processes(left)
	a := f.Ask("install", append(bad, "--batch", "1", "--max-failures", "1")...)
	want := all(f.Nodes, "skipped")
	want[tried.Name] = "failed"
	expect(t, a, 1, want)
	if o := a.Nodes[tried.Name]; !contains(o.Cause, "not ready") || !contains(o.Cause, "the node is as before") || !contains(strings.Join(o.Journal, "\n"), "out of order") {
		t.Errorf("%+v", o)
	}
	for name, now := range processes(left) {
		if now != before[name] {
			t.Errorf("%s: %q before, %q now", name, before[name], now)
		}
	}
	for _, n := range f.Nodes {
		healthy(t, f, n, older)
		n.Do("rpm -q clientmountd-0.1.0 nnf-dm-0.1.0")
	}
	tried.serves("put-back")
	expect(t, f.Ask("install", newer.PackageArguments()...), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		healthy(t, f, n, newer)
	}
}
