package datamovement

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxPath = 4095 // PATH_MAX without the terminating zero
	maxName = 255  // NAME_MAX

	pathPunctuation = "%+,-./:=@^_"
	pathRule        = "a path is made of letters, digits and % + , - . / : = @ ^ _ , because the rabbit puts it into a command line"
)

// cleanPath is an absolute path from which . and // were taken, without .., made
// of characters that mean nothing to a shell. Slash remembers that it ended with one: the
// contents of a directory, not the directory itself.
type cleanPath struct {
	Path  string // never ends with /, but for the root itself
	Slash bool
}

// String returns the path with its slash.
func (p cleanPath) String() string {
	if p.Slash && p.Path != "/" {
		return p.Path + "/"
	}
	return p.Path
}

// parsePath cleans a path, and refuses one that could leave the place where it
// is, or that could be more than one word on the rabbit's command line ("Do
// better" 1, 6 of contract nnf-dm.md). It looks at the text alone: symbolic
// links are followed by the rabbit, with the ids of the user.
func parsePath(field, p string) (cleanPath, error) {
	switch {
	case p == "":
		return cleanPath{}, invalid(field, "%s is missing", field)
	case len(p) > maxPath:
		return cleanPath{}, refused(field, p, "at most 4095 bytes are allowed")
	case p[0] != '/':
		return cleanPath{}, refused(field, p, "it must be an absolute path")
	case !pathCharacters(p):
		return cleanPath{}, refused(field, p, pathRule)
	}
	for name := range strings.SplitSeq(p, "/") {
		switch {
		case name == "..":
			return cleanPath{}, refused(field, p, "it must not contain .. as a name")
		case len(name) > maxName:
			return cleanPath{}, refused(field, p, "at most 255 bytes are allowed in one name")
		}
	}
	// A dot at the end names the directory's contents, as a slash does.
	return cleanPath{Path: path.Clean(p), Slash: strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")}, nil
}

// parseRoot returns where something is mounted, clean, or nothing when it cannot
// be used: a root of / would contain everything.
func parseRoot(p string) string {
	root, err := parsePath("root", p)
	if err != nil || root.Path == "/" {
		return ""
	}
	return root.Path
}

// pathCharacters allows letters and digits of all languages, for people name
// files in theirs. Their bytes are all above ASCII, which no shell takes for
// syntax; blanks of other languages are not letters.
func pathCharacters(p string) bool {
	if !utf8.ValidString(p) {
		return false
	}
	for _, r := range p {
		switch {
		case r < utf8.RuneSelf:
			if !alnum(byte(r)) && strings.IndexByte(pathPunctuation, byte(r)) < 0 {
				return false
			}
		case !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsNumber(r):
			return false
		}
	}
	return true
}

// within returns what of p is behind dir, by whole names: "" for dir itself,
// else a text that starts with a slash. Both are clean.
func within(p, dir string) (rest string, ok bool) {
	if dir == "/" {
		if p == "/" {
			return "", true
		}
		return p, true
	}
	rest, ok = strings.CutPrefix(p, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}
