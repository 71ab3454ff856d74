package table

import (
	"bytes"
	"testing"
)

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, []string{"NAME", "X", "TEXT"}, [][]string{{"漢字", "1", "\x1b[31mred\nline"}, {"abcdefg", "", ""}}); err != nil {
		t.Fatal(err)
	}
	const want = "NAME     X  TEXT\n漢字     1  \\x1b[31mred\\nline\nabcdefg\n"
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
}
