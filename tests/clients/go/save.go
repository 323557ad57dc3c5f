// Saves the information of one certificate, or prints why the call failed.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	scm "example.org/client/huaweicloud/scm/v1"
)

func main() {
	conn, err := grpc.NewClient("127.0.0.1:50051", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	reply, err := scm.NewCertificateServiceClient(conn).SaveInfo(ctx, &scm.SaveInfoRequest{
		CertId: os.Args[1],
		Info: &scm.CertificateInfo{
			Domain: "www.xzz.com", Sans: []string{"xzz.com"}, Country: "CN", ApplicantName: "Tom",
			ApplicantPhone: "13212345678", ApplicantEmail: "9997342346@qq.com", AgreePrivacyProtection: true,
		},
	})
	if err == nil {
		fmt.Println(reply.GetRequestInfo())
		return
	}
	failure := status.Convert(err)
	fmt.Printf("%v: %s\n", code.Code(failure.Code()), failure.Message())
	for _, detail := range failure.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Println("ErrorInfo", detail.GetReason(), detail.GetMetadata()["upstream_code"])
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				fmt.Printf("BadRequest %s: %s\n", violation.GetField(), violation.GetDescription())
			}
		case *errdetails.RetryInfo:
			fmt.Println("RetryInfo", detail.GetRetryDelay().AsDuration().Milliseconds(), "ms")
		}
	}
}
