package payload

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Package is a binary RPM.
type Package struct {
	File
	Name   string
	NEVRA  string // name-epoch:version-release.arch, without epoch if it has none
	Arch   string // as printed by uname -m, or noarch
	Header string // SHA-256 of the header, as rpm's SHA256HEADER; it differs between two builds of the same version
}

// Packages reads package files. It leaves out source packages and packages with other
// names, and returns their paths in skipped.
func Packages(paths, names []string) (p Payload, skipped []string, err error) {
	for _, path := range paths {
		one, source, err := readPackage(path)
		if err != nil {
			return Payload{}, nil, fmt.Errorf("%s: %w", path, err)
		}
		if source || !slices.Contains(names, one.Name) {
			skipped = append(skipped, path)
			continue
		}
		for _, other := range p.Packages {
			if other.Name == one.Name && other.Arch == one.Arch {
				return Payload{}, nil, fmt.Errorf("%s and %s are both %s for %s: give only one of them", other.Path, path, one.Name, one.Arch)
			}
		}
		p.Packages = append(p.Packages, one)
	}
	for _, name := range names {
		if len(p.Arches(name)) == 0 {
			return Payload{}, nil, fmt.Errorf("none of the files is a package of %s: add one, or select the other daemon with --only-daemon", name)
		}
	}
	return p, skipped, nil
}

func readPackage(path string) (one Package, source bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Package{}, false, errors.Unwrap(err) // the caller adds the path
	}
	defer f.Close()
	tags, sum, err := header(bufio.NewReader(f))
	if err != nil {
		return Package{}, false, err
	}
	one = Package{Name: tags[tagName], Arch: tags[tagArch], Header: sum}
	if one.Name == "" || tags[tagVersion] == "" || one.Arch == "" {
		return Package{}, false, errors.New("the header has no name, version or architecture")
	}
	epoch := ""
	if e := tags[tagEpoch]; e != "" {
		epoch = e + ":"
	}
	one.NEVRA = fmt.Sprintf("%s-%s%s-%s.%s", one.Name, epoch, tags[tagVersion], tags[tagRelease], one.Arch)
	one.File, err = read(path)
	return one, tags[tagSourceRPM] == "", err
}

// Tags of a header (rpm's rpmtag.h).
const (
	tagName      = 1000
	tagVersion   = 1001
	tagRelease   = 1002
	tagEpoch     = 1003
	tagArch      = 1022
	tagSourceRPM = 1044
)

// Types of the value of a tag.
const (
	typeInt32  = 4
	typeString = 6
)

const (
	leadSize  = 96
	headLimit = 64 << 20
)

var (
	leadMagic   = []byte{0xed, 0xab, 0xee, 0xdb}
	headerMagic = []byte{0x8e, 0xad, 0xe8, 0x01}
)

// header reads the main header of a package. It returns its strings and numbers by tag, and
// the SHA-256 of the header.
func header(r io.Reader) (tags map[uint32]string, sum string, err error) {
	lead := make([]byte, leadSize)
	if _, err := io.ReadFull(r, lead); err != nil || !bytes.HasPrefix(lead, leadMagic) {
		return nil, "", errors.New("not an RPM package")
	}
	signature, _, err := section(r)
	if err != nil {
		return nil, "", err
	}
	if pad := len(signature) % 8; pad > 0 {
		if _, err := io.CopyN(io.Discard, r, int64(8-pad)); err != nil {
			return nil, "", errors.New("the package is truncated")
		}
	}
	main, entries, err := section(r)
	if err != nil {
		return nil, "", err
	}
	digest := sha256.Sum256(main)
	index, store := main[16:16+16*entries], main[16+16*entries:]
	tags = make(map[uint32]string)
	for ; len(index) > 0; index = index[16:] {
		tag, kind, offset := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[4:]), binary.BigEndian.Uint32(index[8:])
		if uint64(offset) >= uint64(len(store)) {
			continue
		}
		value := store[offset:]
		switch {
		case kind == typeString:
			text, _, _ := strings.Cut(string(value[:min(len(value), 4096)]), "\x00")
			tags[tag] = text
		case kind == typeInt32 && len(value) >= 4:
			tags[tag] = fmt.Sprint(binary.BigEndian.Uint32(value))
		}
	}
	return tags, hex.EncodeToString(digest[:]), nil
}

// section reads one header structure: its data, and the number of its index entries.
func section(r io.Reader) (data []byte, entries int, err error) {
	intro := make([]byte, 16)
	if _, err := io.ReadFull(r, intro); err != nil || !bytes.HasPrefix(intro, headerMagic) {
		return nil, 0, errors.New("not an RPM package: a header is missing")
	}
	n, size := uint64(binary.BigEndian.Uint32(intro[8:])), uint64(binary.BigEndian.Uint32(intro[12:]))
	if n*16+size > headLimit {
		return nil, 0, errors.New("not an RPM package: the header is too large")
	}
	var body bytes.Buffer // grows with the data that is read, not with the size that the file claims
	if got, err := io.CopyN(&body, r, int64(n*16+size)); err != nil || uint64(got) != n*16+size {
		return nil, 0, errors.New("the package is truncated")
	}
	return append(intro, body.Bytes()...), int(n), nil
}
