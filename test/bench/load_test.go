package bench

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// loadVariable, where set, makes this program one that sends requests. It runs apart, so that the
// processor time of the one that measures is that of the server alone.
const loadVariable = "COUNTERSIGN_BENCH_LOAD"

// order is what the load generator is asked to do, a line of JSON each; the first one has CA and
// Bodies.
type order struct {
	CA     []byte   `json:",omitempty"`
	Bodies [][]byte `json:",omitempty"`
	// URL is asked by so many clients, each with one request at a time, for so long. HTTP1 gives
	// each a connection of its own; otherwise all share one, as the API server's do.
	URL     string
	Clients int
	For     time.Duration
	HTTP1   bool
}

// result is the answer to an order.
type result struct {
	Requests int64
	Took     time.Duration
	Error    string `json:",omitempty"`
}

// generateLoad carries out orders until there are no more.
func generateLoad(in io.Reader, out io.Writer) error {
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	var bodies [][]byte
	clients := map[bool]*http.Client{}
	for {
		var o order
		if err := decoder.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if o.CA != nil {
			bodies = o.Bodies
			for _, http1 := range []bool{false, true} {
				pool := x509.NewCertPool()
				pool.AppendCertsFromPEM(o.CA)
				clients[http1] = &http.Client{Transport: &http.Transport{
					TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
					ForceAttemptHTTP2: !http1, MaxIdleConnsPerHost: 64,
				}}
			}
		}
		if err := encoder.Encode(carryOut(clients[o.HTTP1], bodies, o)); err != nil {
			return err
		}
	}
}

func carryOut(c *http.Client, bodies [][]byte, o order) result {
	var wg sync.WaitGroup
	var sent atomic.Int64
	var failed atomic.Pointer[string]
	begin := time.Now()
	for range o.Clients {
		wg.Go(func() {
			for time.Since(begin) < o.For && failed.Load() == nil {
				body := bodies[int(sent.Add(1))%len(bodies)]
				if err := send(c, o.URL, body); err != nil {
					text := err.Error()
					failed.Store(&text)
				}
			}
		})
	}
	wg.Wait()
	r := result{Requests: sent.Load(), Took: time.Since(begin)}
	if text := failed.Load(); text != nil {
		r.Error = *text
	}
	return r
}

func send(c *http.Client, url string, body []byte) error {
	resp, err := c.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"allowed":true`)) {
		return fmt.Errorf("%s answered %s: %s", url, resp.Status, answer)
	}
	return nil
}

// generator is the process that sends requests.
type generator struct {
	encoder *json.Encoder
	decoder *json.Decoder
}

// newGenerator starts the process; it ends with the benchmark, or when its input does.
func newGenerator(tb testing.TB, ca []byte, bodies [][]byte) *generator {
	tb.Helper()
	self, err := os.Executable()
	check(tb, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), loadVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(tb, err)
	out, err := cmd.StdoutPipe()
	check(tb, err)
	check(tb, cmd.Start())
	tb.Cleanup(func() {
		check(tb, in.Close())
		check(tb, cmd.Wait())
	})
	g := &generator{encoder: json.NewEncoder(in), decoder: json.NewDecoder(out)}
	g.do(tb, order{CA: ca, Bodies: bodies})
	return g
}

func (g *generator) do(tb testing.TB, o order) result {
	tb.Helper()
	check(tb, g.encoder.Encode(o))
	var r result
	check(tb, g.decoder.Decode(&r))
	if r.Error != "" {
		tb.Fatal(r.Error)
	}
	return r
}
