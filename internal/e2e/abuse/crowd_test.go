package abuse

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// crowd is the first user ID of the users without a process.
const crowd = 20000

// dialAs connects as another user.
func dialAs(socket string, uid int) (net.Conn, error) { return lab.DialAs(socket, uid, uid) }

// clientAs returns a gRPC client of another user.
func (s *env) clientAs(t *testing.T, uid int) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return dialAs(s.Socket, uid) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// greedy returns the first frames of a client with the largest flow-control windows: 2 GiB for
// each stream and for the connection.
func greedy() []byte {
	const most = 1<<31 - 1
	settings := binary.BigEndian.AppendUint32([]byte{0, 4}, most) // SETTINGS_INITIAL_WINDOW_SIZE
	update := binary.BigEndian.AppendUint32(nil, most-65535)
	return append(append([]byte(preface), frame(frameSettings, 0, 0, settings)...), frame(frameWindowUpdate, 0, 0, update)...)
}

// whole returns a complete request with one message.
func whole(stream uint32, method string, body []byte) []byte {
	payload := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	return append(headers(stream, method), frame(frameData, flagEndStream, stream, payload)...)
}

// followed creates n movements of a job with long paths, and returns the request to watch all
// of them.
func (s *env) followed(t *testing.T, j *fixture.Job, n int) []byte {
	t.Helper()
	long := strings.Repeat("/"+strings.Repeat("x", 249), 16)
	for i := range n {
		s.Apply(fixture.DataMovement(s.Rabbit, fmt.Sprintf("nnf-dm-node-%s-%04d", j.Name, i), s.Node, j.Name, j.UID, map[string]any{
			"userId": j.User, "groupId": j.Group, "source": map[string]any{"path": j.OnRabbit(0) + long}, "destination": map[string]any{"path": fixture.Global + long},
		}))
	}
	body, err := proto.Marshal(&pb2.WatchRequest{Workflow: second(j.Ref())})
	if err != nil {
		t.Fatal(err)
	}
	return body
}
