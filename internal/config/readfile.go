package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// Bounds on what is read. A real file is a few kilobytes.
const (
	maxFile    = 1 << 20
	maxDropIns = 256
)

// readFile returns the text of a configuration file. A file that is not there
// answers found = false. Whatever is not an ordinary file of reasonable size
// that only its owner and group can write is refused, without ever blocking.
func readFile(path string) (data []byte, found bool, problem *Problem) {
	wrong := func(format string, args ...any) ([]byte, bool, *Problem) {
		return nil, true, &Problem{File: path, Text: fmt.Sprintf(format, args...)}
	}
	if path == os.DevNull {
		return nil, true, nil // the customary way to say "no file"
	}
	// O_NONBLOCK: opening a named pipe must not wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return wrong("cannot be read: %v", cause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return wrong("cannot be read: %v", cause(err))
	case info.IsDir():
		return wrong("is a directory, accepted: a file")
	case !info.Mode().IsRegular():
		return wrong("is not an ordinary file")
	case safepath.EntryOf(info).WritableBy(safepath.Everybody):
		return wrong("can be written by everybody, so its content is not trusted (chmod o-w)")
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return wrong("cannot be read: %v", cause(err))
	case len(data) > maxFile:
		return wrong("is larger than 1 MiB, this is no configuration file")
	}
	return data, true, nil
}

// cause strips the path that the caller names anyway.
func cause(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}

// dropIns lists dir/*.toml in lexical order. Hidden files are an editor's, not
// the administrator's. A directory that is not there has none.
func dropIns(dir string) ([]string, *Problem) {
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Problem{File: dir, Text: fmt.Sprintf("cannot be listed: %v", cause(err))}
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	if len(paths) > maxDropIns {
		return nil, &Problem{File: dir, Text: fmt.Sprintf("holds %d files, accepted: at most %d", len(paths), maxDropIns)}
	}
	return paths, nil
}

// Bounds on the structure of a file. Ours needs one level of tables and one of
// arrays; the parser takes time that grows with the square of the nesting.
const (
	maxBraces   = 256  // in the whole file
	maxBrackets = 8192 // in the whole file
	maxDots     = 256  // in one line
)

// shape refuses text that is not UTF-8 or is nested beyond all reason, before
// the parser sees it. Comment lines may hold anything.
func shape(data []byte) (line int, text string) {
	braces, brackets := 0, 0
	for l := range bytes.Lines(data) {
		line++
		if !utf8.Valid(l) {
			return line, "is not UTF-8"
		}
		if bytes.HasPrefix(bytes.TrimLeft(l, " \t"), []byte("#")) {
			continue
		}
		braces += bytes.Count(l, []byte("{"))
		brackets += bytes.Count(l, []byte("["))
		if braces > maxBraces || brackets > maxBrackets || bytes.Count(l, []byte(".")) > maxDots {
			return line, "too deeply nested, this is no configuration file"
		}
	}
	return 0, ""
}
