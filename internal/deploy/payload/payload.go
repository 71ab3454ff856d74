// Package payload reads what is sent to nodes from the administrator's host: packages, or
// programs without a package, which it can build.
//
// It must not know what nodes there are, nor what is on them.
package payload

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// File is one file on the administrator's host.
type File struct {
	Path string
	Size int64
	Sum  string // SHA-256, in hexadecimal
}

// Payload is packages or programs, or neither: then the programs of the nodes stay
// as they are.
type Payload struct {
	Packages []Package
	Programs []Program
}

// Arches returns the machines (uname -m) for which there is a program or package of this
// name.
func (p Payload) Arches(name string) (list []string) {
	for _, one := range p.Packages {
		if one.Name == name {
			list = append(list, one.Arch)
		}
	}
	for _, one := range p.Programs {
		if one.Name == name {
			list = append(list, one.Arch)
		}
	}
	return list
}

func read(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return File{Path: path, Size: n, Sum: hex.EncodeToString(h.Sum(nil))}, err
}

// Program is a binary that is not in a package.
type Program struct {
	File
	Name string
	Arch string // as uname -m calls it
}

var machines = map[elf.Machine]string{elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64"}

// Programs returns the daemons of these names in a directory, and the programs that come
// with them.
func Programs(dir string, names []string) (Payload, error) {
	var p Payload
	for _, name := range names {
		one, err := program(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			return Payload{}, fmt.Errorf("%s is not in %s: build it (make build-daemon), or name the folder that has it", name, dir)
		} else if err != nil {
			return Payload{}, err
		}
		p.Programs = append(p.Programs, one)
		d, _ := product.Of(name)
		for _, other := range d.Beside { // if they are there
			one, err := program(dir, other)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return Payload{}, err
			}
			p.Programs = append(p.Programs, one)
		}
	}
	return p, nil
}

func program(dir, name string) (Program, error) {
	path := filepath.Join(dir, name)
	f, err := read(path)
	if err != nil {
		return Program{}, err
	}
	e, err := elf.Open(path)
	if err != nil {
		return Program{}, fmt.Errorf("%s is not a program for Linux: %w", path, err)
	}
	defer e.Close()
	arch, known := machines[e.Machine]
	if !known {
		return Program{}, fmt.Errorf("%s is for %s: the daemons are for x86_64 and aarch64", path, e.Machine)
	}
	return Program{File: f, Name: name, Arch: arch}, nil
}

// Build runs a build command in a directory, without a shell. Its output goes to w.
func Build(ctx context.Context, dir, command string, w io.Writer) error {
	words := strings.Fields(command)
	if len(words) == 0 {
		return errors.New("the build command is empty")
	}
	if st, err := os.Stat(dir); err != nil {
		return fmt.Errorf("the folder to build in: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("%s is no folder to build in", dir)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, w, w
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s in %s: %w; --binary-dir or --rpm take what is built already", command, dir, err)
	}
	return nil
}
