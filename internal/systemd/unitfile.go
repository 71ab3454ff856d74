package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bare are the characters that have no special meaning for systemd in a word.
const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"

// Quote returns text as one word of ExecStart= (systemd.service(5), Command
// lines): specifiers and variables are escaped.
func Quote(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", fmt.Errorf("the argument %.80q is not valid UTF-8, as a unit file requires", text)
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("the argument %.80q contains a control character, which a unit file cannot represent", text)
	}
	word := strings.NewReplacer("%", "%%", "$", "$$", `\`, `\\`, `"`, `\"`).Replace(text)
	if text == "" || strings.Trim(text, bare) != "" {
		word = `"` + word + `"`
	}
	return word, nil
}

// quoteProgram is Quote for the first word. systemd does not expand variables in it, so a
// dollar sign cannot be escaped.
func quoteProgram(path string) (string, error) {
	if strings.HasPrefix(path, "/") && !strings.Contains(path, "$") {
		return Quote(path)
	}
	return "", fmt.Errorf("the program %.80q cannot be used in ExecStart=: the path must be absolute and must not contain a dollar sign", path)
}

// QuoteEnvironment returns an assignment for Environment= (systemd.exec(5)), in which
// only specifiers are expanded.
func QuoteEnvironment(name, value string) (string, error) {
	if name == "" || strings.Trim(name, nameCharacters) != "" || name[0] >= '0' && name[0] <= '9' {
		return "", fmt.Errorf("%.80q is not a valid name of an environment variable", name)
	}
	word, err := Quote(value)
	if err != nil {
		return "", fmt.Errorf("the value of %s: %w", name, err)
	}
	word = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(word, `"`), `"`), "$$", "$")
	return `"` + name + "=" + word + `"`, nil
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

const marker = "# Written by "

// WrittenBy returns the start of units that "PROGRAM install" writes. remove recognizes
// them by it.
func WrittenBy(program string) string { return marker + program + " install." }

// OlderPIDFile returns the PIDFile= in units that older daemons wrote. No daemon ever
// wrote this file.
func OlderPIDFile(program string) string { return "/var/run/" + program + ".pid" }

// written returns the first lines of files that install writes.
func (s *Service) written() string {
	return fmt.Sprintf("%s %s remove deletes it: put changes into\n# a drop-in, with systemctl edit %s.\n", WrittenBy(s.Name), s.Name, s.Name)
}

// render returns the text of a unit that install writes: the shipped unit with this
// program, and with these arguments appended to those of the unit.
func (s *Service) render(unit Unit, program string, args []string) (string, error) {
	text := s.written() + unit.Text
	if !isService(unit.Name) {
		return text, nil
	}
	word, err := quoteProgram(program)
	if err != nil {
		return "", err
	}
	words := []string{word}
	before, after, found := strings.Cut(text, "\nExecStart=")
	if !found || strings.Contains(after, "\nExecStart=") {
		return "", errors.New("the shipped unit must have exactly one ExecStart=: this is a bug, please report it")
	}
	line, after, _ := strings.Cut(after, "\n")
	if strings.HasSuffix(line, `\`) {
		return "", errors.New("the shipped ExecStart= spans several lines: this is a bug, please report it")
	}
	if _, shipped, ok := strings.Cut(line, " "); ok {
		words = append(words, shipped)
	}
	for _, arg := range args {
		if word, err = Quote(arg); err != nil {
			return "", err
		}
		words = append(words, word)
	}
	return before + "\nExecStart=" + strings.Join(words, " ") + "\n" + after, nil
}

func isService(unit string) bool { return strings.HasSuffix(unit, ".service") }

// enables reports whether a unit has an [Install] section. Other units start a unit
// without one.
func enables(text string) bool { return strings.Contains("\n"+text, "\n[Install]\n") }

// create creates a file atomically, readable by all users. If path exists, even as a
// link, the error is fs.ErrExist.
func create(path, text string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Link(f.Name(), path) // unlike a rename, it does not replace a file
}

// present reports whether the path exists.
func present(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// packaged reports whether a package provides the unit of the service.
func (s *Service) packaged() (bool, error) { return present(s.path(PackageDirectory, s.Units[0].Name)) }

// byInstall reports whether the file was written by install, or by install of an older
// daemon, whose units have a PID file.
func (s *Service) byInstall(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	pid := OlderPIDFile(s.Name)
	older := strings.Contains(string(text), "\nExecStartPre=/bin/rm -f "+pid+"\n") && strings.Contains(string(text), "\nPIDFile="+pid+"\n")
	return strings.HasPrefix(string(text), marker) || older, nil
}

// hidden returns advice about a unit in /etc that overrides the unit of the package, or
// "" if one of the two does not exist.
func (s *Service) hidden(unit string) (advice string, err error) {
	own := s.path(UnitDirectory, unit)
	for _, path := range []string{own, s.path(PackageDirectory, unit)} {
		if there, err := present(path); err != nil || !there {
			return "", err
		}
	}
	if target, err := os.Readlink(own); err == nil && target == "/dev/null" {
		return fmt.Sprintf("%s is masked and cannot be started; if this is not intended, run systemctl unmask %s", unit, unit), nil
	}
	advice = own + " overrides the unit of the package; to use that unit, "
	written, err := s.byInstall(own)
	if written {
		return advice + fmt.Sprintf("run %s remove, then %s install and %s start", s.Name, s.Name, s.Name), err
	}
	return advice + fmt.Sprintf("move your changes into a drop-in (systemctl edit %s), delete the file, then run systemctl daemon-reload and restart the service", unit), err
}

// dropIns returns the drop-ins of the administrator for our units.
func (s *Service) dropIns() (paths []string) {
	for _, unit := range s.Units {
		found, _ := filepath.Glob(s.path(UnitDirectory, unit.Name+".d") + "/*.conf") // the pattern is well formed
		paths = append(paths, found...)
	}
	return paths
}
