package copytool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// copier copies trees like cp -R: links are copied as links and are not followed
// below the source.
type copier struct {
	options dcpOptions
	say     *report
}

// measure adds the source to the totals for the percentages.
func (c *copier) measure(source string) error {
	if strings.HasSuffix(source, "/") {
		source += "." // follows a link to a directory
	}
	return filepath.WalkDir(source, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		c.say.items++
		switch {
		case entry.IsDir():
			c.say.directories++
		case entry.Type()&fs.ModeSymlink != 0:
			c.say.links++
		case entry.Type().IsRegular():
			c.say.files++
			c.say.total += info.Size()
		}
		return nil
	})
}

func (c *copier) tree(from, to string) error {
	if inside(from, to) {
		return fmt.Errorf("cannot copy %s into itself, %s", from, to)
	}
	type directory struct {
		path string
		info fs.FileInfo
	}
	var directories []directory // their modes and times are set last, because new entries change them
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case entry.IsDir():
			directories = append(directories, directory{target, info})
			if err := os.Mkdir(target, 0o700|info.Mode().Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		case entry.Type()&fs.ModeSymlink != 0:
			return copyLink(path, target)
		case entry.Type().IsRegular():
			return c.file(path, target, info)
		}
		return fmt.Errorf("%s: not a regular file, directory or symbolic link", path)
	})
	for _, f := range directories {
		if err == nil {
			err = c.keep(f.path, f.info)
		}
	}
	return err
}

// inside reports whether to is from or below it.
func inside(from, to string) bool {
	a, errA := filepath.Abs(from)
	b, errB := filepath.Abs(to)
	return errA == nil && errB == nil && (a == b || strings.HasPrefix(b, strings.TrimSuffix(a, "/")+"/"))
}

func copyLink(from, to string) error {
	text, err := os.Readlink(from)
	if err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(text, to)
}

func (c *copier) file(from, to string, info fs.FileInfo) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600|info.Mode().Perm())
	if err != nil {
		return err
	}
	if err := c.bytes(out, in); err != nil {
		out.Close()
		return fmt.Errorf("%s: %w", from, err)
	}
	if err := out.Close(); err != nil {
		return err
	}
	return c.keep(to, info)
}

// bytes copies the content of a file in pieces of at most a tenth of the bytes per
// second, so that a slow copy progresses evenly.
func (c *copier) bytes(out io.Writer, in io.Reader) error {
	piece := int64(1 << 20)
	if c.options.rate > 0 {
		piece = min(piece, max(1, c.options.rate/10))
	}
	buffer := make([]byte, piece)
	for {
		n, err := in.Read(buffer)
		if n > 0 {
			if _, err := out.Write(buffer[:n]); err != nil {
				return err
			}
			if c.options.rate > 0 {
				time.Sleep(time.Duration(float64(n) / float64(c.options.rate) * float64(time.Second)))
			}
			c.say.add(int64(n))
			if err := c.halfway(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *copier) halfway() error {
	if c.options.exit != 0 && 2*c.say.done >= c.say.total {
		return errInjected
	}
	return nil
}

func (c *copier) keep(path string, info fs.FileInfo) error {
	if err := os.Chmod(path, info.Mode().Perm()); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err // an existing directory of another user keeps its mode
	}
	if !c.options.preserve {
		return nil
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}
