// Package payload is what is carried to nodes, as it lies on the administrator's
// host: packages, or programs that are bare or have yet to be built.
//
// It must not know what nodes there are, nor what is on them.
package payload

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
)

// File is one file to be carried.
type File struct {
	Path string // here
	Size int64
	Sum  string // SHA-256, in hexadecimal
}

// Payload is packages or programs, or neither: then the programs of the nodes stay
// as they are.
type Payload struct {
	Packages []Package
	Programs []Program
}

// Arches are the machines (uname -m) that something of this name is there for.
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
