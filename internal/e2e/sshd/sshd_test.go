package sshd

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// The directory exists while anyone uses it, and the last user removes it.
func TestHold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sshd")
	first, err := hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := first(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("removed while in use: %v", err)
	}
	if err := second(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("not removed: %v", err)
	}

	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	third, err := hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := third(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("a directory of the machine was removed: %v", err)
	}
}

func TestHoldTogether(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sshd")
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for range 200 {
				release, err := hold(dir)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(dir); err != nil {
					t.Errorf("removed while in use: %v", err)
				}
				if err := release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("not removed: %v", err)
	}
}
