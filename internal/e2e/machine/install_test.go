package machine

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tree makes files with their own path as content.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		path := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPayload(t *testing.T) {
	root := tree(t, "bin/clientmountd", "bin/nnf-dm", "bin/nnf-dmctl", "bin/devcluster",
		"systemd/system/clientmountd.service", "systemd/system/clientmountd.service.d/10-runtime.conf", "systemd/embed.go",
		"systemd/system/units_test.go", "systemd/examples/tight.conf", "systemd/sysusers.d/nnf-dm.conf", "etc/nnf-dm/config.toml")
	data, err := payload(root)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(data, make([]byte, 1024)) {
		t.Error("the archive has no end")
	}
	got := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r)
		got[h.Name] = string(text)
		want := int64(0o644)
		if strings.HasPrefix(h.Name, "usr/bin/") {
			want = 0o755
		}
		if h.Mode != want {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
	}
	for to, from := range map[string]string{
		"usr/bin/clientmountd": "bin/clientmountd", "usr/bin/nnf-dm": "bin/nnf-dm", "usr/bin/nnf-dmctl": "bin/nnf-dmctl",
		"usr/lib/systemd/system/clientmountd.service":                   "systemd/system/clientmountd.service",
		"usr/lib/systemd/system/clientmountd.service.d/10-runtime.conf": "systemd/system/clientmountd.service.d/10-runtime.conf",
		"usr/lib/sysusers.d/nnf-dm.conf":                                "systemd/sysusers.d/nnf-dm.conf",
		"etc/nnf-dm/config.toml":                                        "etc/nnf-dm/config.toml",
	} {
		if got[to] != from {
			t.Errorf("%s has %q, want %s", to, got[to], from)
		}
		delete(got, to)
	}
	if len(got) > 0 {
		t.Errorf("besides that there is %v", got)
	}
}

func TestPayloadWithoutPrograms(t *testing.T) {
	if _, err := payload(tree(t, "bin/clientmountd")); err == nil || !strings.Contains(err.Error(), "make build-daemon") {
		t.Errorf("%v, want an error that says what to do", err)
	}
}

// bin/rpm keeps what earlier commits have left.
func TestNewestPackages(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{
		"nnf-dm-0.0.0-0.gaaaaaaa.x86_64.rpm", "clientmountd-0.0.0-0.gaaaaaaa.x86_64.rpm", "clientmountd-0.0.0-0.gbbbbbbb.x86_64.rpm",
		"nnf-dm-0.0.0-0.gbbbbbbb.aarch64.rpm", "compute-daemons-0.0.0-0.gaaaaaaa.src.rpm",
	} {
		file, at := filepath.Join(dir, name), time.Unix(int64(1000+i), 0)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	got, err := newest(dir)
	want := []string{filepath.Join(dir, "clientmountd-0.0.0-0.gbbbbbbb.x86_64.rpm"), filepath.Join(dir, "nnf-dm-0.0.0-0.gaaaaaaa.x86_64.rpm")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}
