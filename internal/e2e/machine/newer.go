package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// newerVersion is higher than any that git describe gives.
const newerVersion = "9999"

// NewerRepository adds to the machine's repository the packages of a next
// release: the same programs, with another line in the configuration files.
func (m *Machine) NewerRepository() {
	m.t.Helper()
	dir, err := os.MkdirTemp(m.World.Dir, "newer-") // goes with the laboratory, however that ends
	if err != nil {
		m.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	list, err := newer(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, p := range list {
		m.putPackage(p, "/root/repo")
	}
	m.Do("createrepo_c -q --update /root/repo")
}

// newer builds packages in a directory from what make rpm has built.
func newer(dir string) ([]string, error) {
	if err := layNewer(dir); err != nil {
		return nil, err
	}
	return packNewer(dir, newerVersion, "clientmountd", "nnf-dm")
}

// layNewer copies what the packages of make rpm install to dir/root. The configuration
// files get another default.
func layNewer(dir string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	script := `set -eu
cp -a "$1/bin/rpm/source/amd64/root" .
for config in root/etc/*/config.toml; do echo "# another default" >>"$config"; done`
	cmd := exec.Command("sh", "-c", script, "newer", root)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packages of a next release: %w: run make rpm\n%s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

// packNewer builds packages of a version from dir/root in dir, and returns the files.
func packNewer(dir, version string, names ...string) ([]string, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	args := []string{"--config", filepath.Join(root, "nfpm.yaml"), "rpm", "--root", filepath.Join(dir, "root"), dir}
	cmd := exec.Command(filepath.Join(root, "bin/packager"), append(args, names...)...)
	cmd.Env = append(os.Environ(), "GOARCH=amd64", "RPM_VERSION="+version, "RPM_RELEASE=1", "SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("packages of a next release: %w: run make rpm\n%s", err, strings.TrimSpace(string(text)))
	}
	return filepath.Glob(filepath.Join(dir, "*.rpm"))
}
