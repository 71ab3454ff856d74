package remote

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

var fuzzed = session{"0123456789abcdef"}

// parseAnswer parses an answer that arrives in pieces of this size. It returns the parser and
// the lines of the script.
func parseAnswer(data []byte, size int) (*answer, string) {
	var out bytes.Buffer
	a := newAnswer(fuzzed, &out)
	for len(data) > 0 {
		n := min(max(size, 1), len(data))
		if _, err := a.Write(data[:n]); err != nil {
			break
		}
		data = data[n:]
	}
	return a, out.String()
}

// validAnswer returns the output of the command and the wrapper for a script that prints
// these lines.
func validAnswer(lines []string, code int) []string {
	m := fuzzed.marker()
	output := []string{"", m + " ready", m + " started"}
	for _, l := range lines {
		output = append(output, fmt.Sprintf("%s %d %s", m, len(l), l))
	}
	return append(output, fmt.Sprintf("%s exit %d %d", m, code, len(lines)))
}

// FuzzAnswer checks that any output of a node, in pieces of any size, is either an error, or
// consists of complete lines followed by a complete end.
func FuzzAnswer(f *testing.F) {
	m := fuzzed.marker()
	for _, seed := range []string{
		strings.Join(validAnswer([]string{"arch\tx86_64", "end"}, 0), "\n") + "\n",
		"\x1b]0;node\a" + strings.Join(validAnswer([]string{"", " "}, 3), "\nnoise") + "\n",
		m + " ready\n" + m + " started\n" + m + " 3 abc" + m + " 3 abc\n" + m + " exit 0 1\n",
		m + " ready\n" + m + " damaged\n", m + " ready\n" + m + " missing dd\n",
		m + " 1 x\n" + m + " exit 0 1\n" + m + " ready\n",
		m + " ready\n" + m + " started\n" + m + " -1 x\n" + m + " 99999999999999999999 x\n" + m + " exit 0\n",
		m + " exit 0 0\n" + m + " ready", "nnf-deploy:", m, strings.Repeat(m+" ", 9) + "ready\n",
	} {
		f.Add([]byte(seed), 1)
		f.Add([]byte(seed), 7)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		whole, text := parseAnswer(data, len(data))
		pieces, same := parseAnswer(data, size)
		errWhole, errPieces := whole.result("x", 0, ""), pieces.result("x", 0, "")
		if text != same || fmt.Sprint(errWhole) != fmt.Sprint(errPieces) {
			t.Fatalf("whole: %q %v; in pieces of %d: %q %v", text, errWhole, size, same, errPieces)
		}
		if len(text) > len(data) || whole.noise.data.Len() > noiseLimit {
			t.Errorf("%d bytes became %d, with %d bytes of noise", len(data), len(text), whole.noise.data.Len())
		}
		if errWhole != nil {
			return
		}
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if !bytes.Contains(data, fmt.Appendf(nil, "%s %d %s\n", m, len(line), line)) {
				t.Errorf("the node did not send the line %q", line)
			}
		}
		if n := strings.Count(text, "\n"); !bytes.Contains(data, fmt.Appendf(nil, "%s exit ", m)) || n != whole.lines {
			t.Errorf("%d lines, %d counted", n, whole.lines)
		}
	})
}

// FuzzNoise checks that output of other programs between the lines of the script, with or
// without a newline, does not change the answer, and that output within a line is detected.
func FuzzNoise(f *testing.F) {
	f.Add("Welcome", "arch\tx86_64", 0, uint8(0))
	f.Add("\x1b]0;%s\a", "", 3, uint8(2))
	f.Add("a\nb\n", "error\tx\ty", 1, uint8(4))
	f.Add("", "x", 0, uint8(200))
	f.Fuzz(func(t *testing.T, noise, line string, code int, at uint8) {
		if strings.Contains(noise, markerPrefix) || strings.ContainsAny(line, "\n") || strings.Contains(line, markerPrefix) {
			return
		}
		output := validAnswer([]string{line, "end"}, code)
		text := ""
		for i, l := range output {
			if i > 0 && (at == 0 || i == int(at)%len(output)) {
				text += noise
			}
			text += l + "\n"
		}
		a, out := parseAnswer([]byte(text), len(text))
		if a.damaged != "" || out != line+"\nend\n" || a.code != code || !a.exited {
			t.Errorf("%q: %q, %q", text, out, a.damaged)
		}
		if noise == "" || strings.Contains(noise, "\n") {
			return
		}
		// Output within the first line of the script.
		m := fuzzed.marker()
		text = m + " ready\n" + m + " started\n" + fmt.Sprintf("%s %d %s%s\n", m, len(line), line, noise) + m + " exit 0 1\n"
		if a, _ := parseAnswer([]byte(text), len(text)); a.damaged == "" {
			t.Errorf("%q was accepted", text)
		}
	})
}

// FuzzFrame checks that ReadFrame accepts only scripts with a correct checksum.
func FuzzFrame(f *testing.F) {
	f.Add(fuzzed.frame(Script{Text: "true\n"}))
	f.Add([]byte(fuzzed.marker() + " 99999999999 x\n"))
	f.Add([]byte(fuzzed.marker() + " 0 " + fmt.Sprintf("%x", sha256.Sum256(nil)) + "\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		text := ""
		framed, err := readFrame(data, func(s string) string { text = s; return s })
		if err != nil {
			return
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text))); !bytes.Contains(data, []byte(sum)) || !bytes.Contains(framed, []byte(sum)) {
			t.Errorf("%q has checksum %s, which is not in the frame", text, sum)
		}
	})
}

func readFrame(data []byte, change func(string) string) ([]byte, error) {
	return ReadFrame(bufio.NewReader(bytes.NewReader(data)), change)
}
