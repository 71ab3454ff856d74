package lifeline

import (
	"context"
	"io"
	"testing"
)

func TestFollowStdin(t *testing.T) {
	reader, writer := io.Pipe()
	ctx, cancel := FollowStdin(t.Context(), reader)
	defer cancel()
	if _, err := writer.Write([]byte("input is not an end\n")); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatal("ended while the writer holds on")
	}
	writer.CloseWithError(io.ErrUnexpectedEOF)
	<-ctx.Done() // hangs if the end goes unnoticed
}

func TestFollowStdinEndsWithItsContext(t *testing.T) {
	outer, end := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	defer writer.Close()
	ctx, cancel := FollowStdin(outer, reader)
	defer cancel()
	end()
	<-ctx.Done()
}
