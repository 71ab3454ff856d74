package wire

import (
	"bytes"
	"reflect"
	"strings"
	"sync"
	"testing"
)

func read(t *testing.T, text string) (got []Message) {
	t.Helper()
	if err := Read(strings.NewReader(text), func(m Message) { got = append(got, m) }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestMessagesAreUnchanged(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Message{
		{Hello: "boot-1"},
		{Call: 1, Script: "echo \"a\n\x00b\""},
		{Call: 2, Out: []byte{0, 255, '\n', '{'}},
		{Call: 2, Done: true, Code: 137},
		{Call: 3, Kill: true},
	}
	for _, m := range want {
		if err := w.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, b.String()); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// After a guest is killed while it sends a line, the first message of its successor is not
// lost.
func TestAfterIncompleteMessage(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`{"call":7,"out":"AAAA`)
	w, _ := NewWriter(&b)
	if err := w.Send(Message{Hello: "boot-2"}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, b.String()); len(got) != 1 || got[0].Hello != "boot-2" {
		t.Errorf("got %+v", got)
	}
}

func TestInputInParts(t *testing.T) {
	for _, size := range []int{0, 1, Chunk, Chunk + 1, 3 * Chunk} {
		var b bytes.Buffer
		w, _ := NewWriter(&b)
		data := bytes.Repeat([]byte{7}, size)
		if err := w.SendInput(1, data); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, m := range read(t, b.String()) {
			got = append(got, m.In...)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes sent, %d received", size, len(got))
		}
	}
}

func TestSeveralSenders(t *testing.T) {
	var b bytes.Buffer
	w, _ := NewWriter(&b)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				_ = w.Send(Message{Call: i + 1, Out: []byte("text")})
			}
		})
	}
	all.Wait()
	if got := read(t, b.String()); len(got) != 400 {
		t.Errorf("%d messages, want 400", len(got))
	}
}
