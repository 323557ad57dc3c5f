// A client in Go, from the proto alone: every way a call can end, read with gRPC's own libraries.
//
// Usage: client ADDRESS TRACEPARENT [drain]. Debian's grpc-go is of 2020 and speaks through an older protobuf than what
// protoc generates today: `codec` joins the two. Today's needs none of it; see README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/runtime/protoimpl"

	scm "scm"
)

type codec struct{}

func (codec) Name() string                          { return "proto" }
func (codec) Marshal(m interface{}) ([]byte, error) { return proto.Marshal(protoimpl.X.ProtoMessageV2Of(m)) }
func (codec) Unmarshal(data []byte, m interface{}) error {
	return proto.Unmarshal(data, protoimpl.X.ProtoMessageV2Of(m))
}

// As gRPC writes them.
var names = map[codes.Code]string{codes.Canceled: "CANCELLED", codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.ResourceExhausted: "RESOURCE_EXHAUSTED", codes.Unavailable: "UNAVAILABLE"}

func name(err error) string { return names[status.Code(err)] }

// Reads the detail of this type, if the error has one.
func detail(err error, into interface{}) {
	message := protoimpl.X.ProtoMessageV2Of(into)
	for _, any := range status.Convert(err).Proto().GetDetails() {
		if strings.HasSuffix(any.GetTypeUrl(), "/"+string(message.ProtoReflect().Descriptor().FullName())) {
			must(proto.Unmarshal(any.GetValue(), message))
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func request(certID string) *scm.SaveInfoRequest {
	return &scm.SaveInfoRequest{
		CertId: certID,
		Info: &scm.CertificateInfo{
			Domain: "www.xzz.com", Sans: []string{"xzz.com"}, Country: "CN", ApplicantName: "Tom",
			ApplicantPhone: "13212345678", ApplicantEmail: "9997342346@qq.com", AgreePrivacyProtection: true,
		},
	}
}

func main() {
	conn, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	must(err)
	defer conn.Close()
	client := scm.NewCertificateServiceClient(conn)
	save := func(certID string, time time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), time)
		defer cancel()
		_, err := client.SaveInfo(ctx, request(certID))
		return err
	}
	const good, patience = "scs1481110651012", 5 * time.Second
	if len(os.Args) > 3 {
		fmt.Println("drain:", name(save(good, patience)))
		return
	}

	ctx := metadata.AppendToOutgoingContext(context.Background(), "traceparent", os.Args[2])
	var header metadata.MD
	saved, err := client.SaveInfo(ctx, request(good), grpc.Header(&header))
	must(err)
	fmt.Println("SaveInfo:", saved.GetRequestInfo())
	fmt.Println("request id:", map[bool]string{true: "given", false: "missing"}[len(header.Get("x-upstream-request-id")) > 0])
	read, err := client.ReadInfo(context.Background(), &scm.ReadInfoRequest{CertId: good})
	must(err)
	fmt.Println("ReadInfo:", read.GetInfo().GetDomain())

	refused := save("!", patience)
	var bad errdetails.BadRequest
	detail(refused, &bad)
	fmt.Print("BadRequest:")
	for _, violation := range bad.GetFieldViolations() {
		fmt.Print(" ", violation.GetField())
	}
	var info errdetails.ErrorInfo
	detail(refused, &info)
	fmt.Println("\nErrorInfo:", info.GetDomain(), info.GetReason())

	// One call is all that this gateway takes, and it takes half a second.
	ends := make(chan error, 2)
	for range [2]int{} {
		go func() { ends <- save(good, patience) }()
	}
	shed := <-ends
	if other := <-ends; shed == nil {
		shed = other
	}
	var overload errdetails.ErrorInfo
	var retry errdetails.RetryInfo
	detail(shed, &overload)
	detail(shed, &retry)
	fmt.Println("overload:", name(shed), overload.GetReason())
	fmt.Println("RetryInfo:", retry.GetRetryDelay().GetSeconds(), "s")

	fmt.Println("deadline:", name(save(good, 200*time.Millisecond)))
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = client.SaveInfo(ctx, request(good))
	fmt.Println("cancel:", name(err))

	answer, err := health.NewHealthClient(conn).Check(context.Background(),
		&health.HealthCheckRequest{Service: "huaweicloud.scm.v1.CertificateService"})
	must(err)
	fmt.Println("health:", answer.GetStatus())

	stream, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(context.Background())
	must(err)
	must(stream.Send(&reflection.ServerReflectionRequest{
		MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}))
	listed, err := stream.Recv()
	must(err)
	for _, service := range listed.GetListServicesResponse().GetService() {
		if strings.HasPrefix(service.GetName(), "huaweicloud") {
			fmt.Println("reflection:", service.GetName())
		}
	}
}
