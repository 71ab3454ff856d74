package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// tree counts the entries of a directory tree.
type tree struct {
	files, directories, links int
	size                      int64
}

func (t tree) String() string {
	links := "1 link"
	if t.links != 1 {
		links = fmt.Sprintf("%d links", t.links)
	}
	return fmt.Sprintf("%d files, %d directories, %s, %.1f MB", t.files, t.directories, links, float64(t.size)/1e6)
}

// plant creates a tree of some megabytes that is owned by a user.
func plant(root string, uid int) (tree, error) {
	const directories, files, size = 4, 8, 300 << 10
	for d := range directories {
		dir := filepath.Join(root, fmt.Sprintf("step-%d", d), "rank")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return tree{}, err
		}
		for f := range files {
			content := bytes.Repeat([]byte{byte(d), byte(f), 'x', '\n'}, (size-f*f*1000)/4)
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(f)), content, 0o640); err != nil {
				return tree{}, err
			}
		}
	}
	last := filepath.Join(root, "step-3")
	if err := errors.Join(
		os.WriteFile(filepath.Join(root, "empty"), nil, 0o600), os.Chmod(filepath.Join(last, "rank", "0"), 0o755),
		os.Symlink("step-3", filepath.Join(root, "newest")),
	); err != nil {
		return tree{}, err
	}
	return count(root, func(path string, _ fs.FileInfo) error { return os.Lchown(path, uid, uid) })
}

// count counts the entries of a tree and calls each for every entry.
func count(root string, each func(path string, info fs.FileInfo) error) (t tree, err error) {
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			t.directories++
		case e.Type()&fs.ModeSymlink != 0:
			t.links++
		default:
			t.files++
			t.size += info.Size()
		}
		return each(path, info)
	})
	return t, err
}

// compare returns an error unless the copy has exactly the entries of the original,
// with the same type, mode and content, owned by the user.
func compare(original, copied string, uid int) (tree, error) {
	want, err := count(original, func(path string, info fs.FileInfo) error {
		rel, err := filepath.Rel(original, path)
		if err != nil {
			return err
		}
		return same(path, filepath.Join(copied, rel), info, uid)
	})
	if err != nil {
		return want, err
	}
	got, err := count(copied, func(string, fs.FileInfo) error { return nil })
	if err == nil && got != want {
		err = fmt.Errorf("the copy has %v, the original %v", got, want)
	}
	return want, err
}

func same(a, b string, info fs.FileInfo, uid int) error {
	other, err := os.Lstat(b)
	if err != nil {
		return err
	}
	if st, ok := other.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != uid {
		return fmt.Errorf("%s does not belong to user %d", b, uid)
	}
	if other.Mode() != info.Mode() {
		return fmt.Errorf("%s has mode %v, the original %v", b, other.Mode(), info.Mode())
	}
	read := os.ReadFile
	switch {
	case info.IsDir():
		return nil
	case info.Mode()&fs.ModeSymlink != 0:
		read = func(path string) ([]byte, error) { to, err := os.Readlink(path); return []byte(to), err }
	}
	x, err1 := read(a)
	y, err2 := read(b)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if !bytes.Equal(x, y) {
		return fmt.Errorf("%s differs from the original", b)
	}
	return nil
}
