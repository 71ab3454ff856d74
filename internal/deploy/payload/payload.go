// Package payload reads the files that nnf-deploy sends to nodes: packages, or programs
// without a package, which it can build.
//
// It must not depend on the nodes or on what they have.
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

// Payload has packages, or programs, or neither. If it is empty, the programs on the nodes
// are not changed.
type Payload struct {
	Packages []Package
	Programs []Program
}

// Arches returns the architectures (uname -m) for which p has a program or package of this
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
	Arch string // as printed by uname -m
}

var machines = map[elf.Machine]string{elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64"}

// Programs reads the daemons with these names from a directory, and their clients if they
// are there.
func Programs(dir string, names []string) (Payload, error) {
	var p Payload
	for _, name := range names {
		one, err := program(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			return Payload{}, fmt.Errorf("%s is not in %s: build it with make build-daemon, or give the directory that contains it", name, dir)
		} else if err != nil {
			return Payload{}, err
		}
		p.Programs = append(p.Programs, one)
		d, _ := product.Of(name)
		for _, other := range d.Clients {
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
		return Program{}, fmt.Errorf("%s is built for %s: the daemons support x86_64 and aarch64", path, e.Machine)
	}
	return Program{File: f, Name: name, Arch: arch}, nil
}

// Build runs a build command in a directory, without a shell. Its output is written to w.
func Build(ctx context.Context, dir, command string, w io.Writer) error {
	words := strings.Fields(command)
	if len(words) == 0 {
		return errors.New("the build command is empty")
	}
	if st, err := os.Stat(dir); err != nil {
		return fmt.Errorf("build directory: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("build directory %s is not a directory", dir)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, w, w
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s in %s: %w; to install existing builds, use --binary-dir or --rpm", command, dir, err)
	}
	return nil
}
