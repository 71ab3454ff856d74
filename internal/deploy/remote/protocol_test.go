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

// hear parses an answer that arrives in pieces of this size.
func hear(data []byte, size int) (*answer, string) {
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

// speak returns what the command and the wrapper print for these lines.
func speak(lines []string, code int) []string {
	m := fuzzed.marker()
	said := []string{"", m + " ready", m + " begun"}
	for _, l := range lines {
		said = append(said, fmt.Sprintf("%s %d %s", m, len(l), l))
	}
	return append(said, fmt.Sprintf("%s exit %d %d", m, code, len(lines)))
}

// FuzzAnswer: a node may print what it wants, in pieces of any size. What comes
// of it is an error, or lines that were each sent whole, before a whole end.
func FuzzAnswer(f *testing.F) {
	m := fuzzed.marker()
	for _, seed := range []string{
		strings.Join(speak([]string{"arch\tx86_64", "end"}, 0), "\n") + "\n",
		"\x1b]0;node\a" + strings.Join(speak([]string{"", " "}, 3), "\nnoise") + "\n",
		m + " ready\n" + m + " begun\n" + m + " 3 abc" + m + " 3 abc\n" + m + " exit 0 1\n",
		m + " ready\n" + m + " damaged\n", m + " ready\n" + m + " missing dd\n",
		m + " 1 x\n" + m + " exit 0 1\n" + m + " ready\n",
		m + " ready\n" + m + " begun\n" + m + " -1 x\n" + m + " 99999999999999999999 x\n" + m + " exit 0\n",
		m + " exit 0 0\n" + m + " ready", "nnf-deploy:", m, strings.Repeat(m+" ", 9) + "ready\n",
	} {
		f.Add([]byte(seed), 1)
		f.Add([]byte(seed), 7)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		whole, text := hear(data, len(data))
		pieces, same := hear(data, size)
		errWhole, errPieces := whole.judge("x", 0, ""), pieces.judge("x", 0, "")
		if text != same || fmt.Sprint(errWhole) != fmt.Sprint(errPieces) {
			t.Fatalf("whole: %q %v; in pieces of %d: %q %v", text, errWhole, size, same, errPieces)
		}
		if len(text) > len(data) || whole.noise.data.Len() > noiseLimit {
			t.Errorf("%d bytes became %d, with %d of noise", len(data), len(text), whole.noise.data.Len())
		}
		if errWhole != nil {
			return
		}
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if !bytes.Contains(data, fmt.Appendf(nil, "%s %d %s\n", m, len(line), line)) {
				t.Errorf("%q was not sent like that", line)
			}
		}
		if n := strings.Count(text, "\n"); !bytes.Contains(data, fmt.Appendf(nil, "%s exit ", m)) || n != whole.lines {
			t.Errorf("%d lines, %d counted", n, whole.lines)
		}
	})
}

// FuzzNoise: what others print between our lines, with or without a newline,
// changes no answer; what they print into a line is noticed.
func FuzzNoise(f *testing.F) {
	f.Add("Welcome", "arch\tx86_64", 0, uint8(0))
	f.Add("\x1b]0;%s\a", "", 3, uint8(2))
	f.Add("a\nb\n", "error\tx\ty", 1, uint8(4))
	f.Add("", "x", 0, uint8(200))
	f.Fuzz(func(t *testing.T, noise, line string, code int, at uint8) {
		if strings.Contains(noise, markerPrefix) || strings.ContainsAny(line, "\n") || strings.Contains(line, markerPrefix) {
			return
		}
		said := speak([]string{line, "end"}, code)
		text := ""
		for i, l := range said {
			if i > 0 && (at == 0 || i == int(at)%len(said)) {
				text += noise
			}
			text += l + "\n"
		}
		a, out := hear([]byte(text), len(text))
		if a.damaged != "" || out != line+"\nend\n" || a.code != code || !a.ended {
			t.Errorf("%q: %q, %q", text, out, a.damaged)
		}
		if noise == "" || strings.Contains(noise, "\n") {
			return
		}
		// Now inside of the script's first line.
		m := fuzzed.marker()
		text = m + " ready\n" + m + " begun\n" + fmt.Sprintf("%s %d %s%s\n", m, len(line), line, noise) + m + " exit 0 1\n"
		if a, _ := hear([]byte(text), len(text)); a.damaged == "" {
			t.Errorf("%q passes", text)
		}
	})
}

// FuzzFrame: what ReadFrame accepts is a script whose checksum is right.
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
			t.Errorf("%q is not of checksum %s", text, sum)
		}
	})
}

func readFrame(data []byte, change func(string) string) ([]byte, error) {
	return ReadFrame(bufio.NewReader(bytes.NewReader(data)), change)
}
