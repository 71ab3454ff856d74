package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/packaging"
)

// NewerVersion is that of the newer packages, higher than any that git describe gives.
const NewerVersion = "9999.0.0"

// NewerRepository is the directory of a virtual machine with a repository: it has a package
// of clientmountd that is newer than the installed one and has another default
// configuration.
const NewerRepository = "/run/e2e/newer"

// newerRepository makes that repository in a directory, from the sources of the packages in
// bin/rpm. It returns its files, by their path in the repository.
func newerRepository(t testing.TB, dir string) map[string]string {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	sources, _ := filepath.Glob(filepath.Join(root, "bin/rpm/source/compute-daemons-*/go.mod"))
	if len(sources) != 1 {
		t.Fatalf("the sources of the packages are %q: run make rpm ARCHES=amd64", sources)
	}
	program := filepath.Join(dir, "clientmountd")
	build := exec.Command("go", "build", "-buildvcs=false", "-mod=vendor", "-trimpath", "-tags", "grpcnotrace",
		"-ldflags", "-s -w -X github.com/compute-daemons/compute-daemons/internal/version.Version=v"+NewerVersion,
		"-o", program, "./cmd/clientmountd")
	build.Dir = filepath.Dir(sources[0])
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the newer clientmountd: %v: %s", err, out)
	}
	packages, err := newer(dir, program, "clientmountd")
	repo := filepath.Join(dir, "repo")
	if err == nil {
		err = packaging.MakeRepository(root, repo, "file://"+NewerRepository, nil, packages)
	}
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, pattern := range []string{"*.rpm", "*.repo", "repodata/*"} {
		found, _ := filepath.Glob(filepath.Join(repo, pattern))
		for _, path := range found {
			files[strings.TrimPrefix(path, repo+"/")] = path
		}
	}
	return files
}

// newer builds packages of NewerVersion in a directory, and returns them. They install what
// those in bin/rpm install, except for another default in the configuration files and,
// unless it is empty, the program clientmountd.
func newer(dir, clientmountd string, names ...string) ([]string, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	const script = `set -eu
cp -a "$1/bin/rpm/source/amd64/root" .
for config in root/etc/*/config.toml; do echo "# another default" >>"$config"; done
[ -z "$2" ] || cp "$2" root/usr/bin/clientmountd`
	cmd := exec.Command("sh", "-c", script, "newer", root, clientmountd)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("packages of a next release: %w: run make rpm ARCHES=amd64\n%s", err, out)
	}
	args := []string{"--config", filepath.Join(root, "nfpm.yaml"), "rpm", "--root", filepath.Join(dir, "root"), dir}
	env := []string{"GOARCH=amd64", "RPM_VERSION=" + NewerVersion, "RPM_RELEASE=1", "SOURCE_DATE_EPOCH=1700000000"}
	if err := packager(env, append(args, names...)...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "*.rpm"))
}

// packager runs the program that builds packages.
func packager(env []string, args ...string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(root, "bin/packager"), args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packager %q: %w: run make bin/packager\n%s", args, err, out)
	}
	return nil
}
