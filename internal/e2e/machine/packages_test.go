package machine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

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
