package systemd

import (
	"errors"
	"fmt"
	"strings"
)

const marker = "# Written by "

// WrittenBy is the start of a unit that "PROGRAM install" has written. remove
// recognizes the unit by it.
func WrittenBy(program string) string { return marker + program + " install." }

// OlderPIDFile is the PIDFile= of the units that older daemons wrote. No daemon
// ever wrote the file.
func OlderPIDFile(program string) string { return "/var/run/" + program + ".pid" }

// written is the head of a file that install writes.
func (s *Service) written() string {
	return fmt.Sprintf("%s %s remove deletes it: put changes into\n# a drop-in of your own, with systemctl edit %s.\n", WrittenBy(s.Name), s.Name, s.Name)
}

// render returns the text of a unit as install writes it: as it is shipped, but
// with this program and these arguments behind those that it has.
func (s *Service) render(unit Unit, program string, args []string) (string, error) {
	text := s.written() + unit.Text
	if !isService(unit.Name) {
		return text, nil
	}
	word, err := QuoteProgram(program)
	if err != nil {
		return "", err
	}
	words := []string{word}
	before, after, found := strings.Cut(text, "\nExecStart=")
	if !found || strings.Contains(after, "\nExecStart=") {
		return "", errors.New("the shipped unit does not have one ExecStart=: this is a defect")
	}
	line, after, _ := strings.Cut(after, "\n")
	if strings.HasSuffix(line, `\`) {
		return "", errors.New("the shipped ExecStart= goes on in a second line: this is a defect")
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

// enables reports whether a unit says how it is enabled. One that does not is
// started by another one.
func enables(text string) bool { return strings.Contains("\n"+text, "\n[Install]\n") }
