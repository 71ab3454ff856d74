package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// NewerVersion is that of the newer package.
const NewerVersion = "99.0.0"

// Newer is the folder inside with a package of clientmountd that is newer than
// the installed one and has another default configuration; or why there is none.
func (m *Machine) Newer() (dir, why string) { return "/run/e2e/newer", m.whyNoNewer }

// makeNewer makes a package of clientmountd that is newer than those in bin/rpm, from
// the same sources. It returns the file, or why there is none.
func makeNewer(t testing.TB, dir string) (file, why string) {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	sources, _ := filepath.Glob(filepath.Join(root, "bin/rpm/source/compute-daemons-*/go.mod"))
	_, noPackager := os.Stat(filepath.Join(root, "bin/packager"))
	if noPackager != nil || len(sources) != 1 || len(Packages(t)) == 0 {
		return "", "there are no packages in bin/rpm, or no bin/packager: run make rpm ARCHES=amd64"
	}
	work := filepath.Join(dir, "newer")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := layNewer(work); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-mod=vendor", "-trimpath", "-tags", "grpcnotrace",
		"-ldflags", "-s -w -X github.com/compute-daemons/compute-daemons/internal/version.Version=v"+NewerVersion,
		"-o", filepath.Join(work, "root/usr/bin/clientmountd"), "./cmd/clientmountd")
	build.Dir = filepath.Dir(sources[0])
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the newer clientmountd: %v: %s", err, out)
	}
	files, err := packNewer(work, NewerVersion, "clientmountd")
	if err != nil || len(files) != 1 {
		t.Fatalf("the newer package of clientmountd: %q, %v", files, err)
	}
	return files[0], ""
}
