package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	laid := filepath.Join(root, "bin/rpm/source/amd64")
	nfpm := filepath.Join(root, "bin/nfpm")
	_, noPacker := os.Stat(nfpm)
	if _, err := os.Stat(laid); err != nil || noPacker != nil || len(sources) != 1 || len(Packages(t)) == 0 {
		return "", "there are no packages in bin/rpm, or no bin/nfpm: run make rpm ARCHES=amd64"
	}
	work := filepath.Join(dir, "newer")
	if out, err := exec.Command("cp", "-a", laid, work).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-mod=vendor", "-trimpath", "-tags", "grpcnotrace",
		"-ldflags", "-s -w -X github.com/compute-daemons/compute-daemons/internal/version.Version=v"+NewerVersion,
		"-o", filepath.Join(work, "root/usr/bin/clientmountd"), "./cmd/clientmountd")
	build.Dir = filepath.Dir(sources[0])
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the newer clientmountd: %v: %s", err, out)
	}
	config := filepath.Join(work, "root/etc/clientmountd/config.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "# another default\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	pack := exec.Command(nfpm, "package", "--packager", "rpm", "--config", "clientmountd.yaml", "--target", dir+"/")
	pack.Dir = work
	pack.Env = append(os.Environ(), "RPM_VERSION="+NewerVersion, "RPM_RELEASE=1", "GOARCH=amd64")
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("pack the newer clientmountd: %v: %s", err, out)
	}
	file = filepath.Join(dir, fmt.Sprintf("clientmountd-%s-1.x86_64.rpm", NewerVersion))
	if _, err := os.Stat(file); err != nil {
		found, _ := filepath.Glob(filepath.Join(dir, "*.rpm"))
		t.Fatalf("%v; there is %s", err, strings.Join(found, " "))
	}
	return file, ""
}
