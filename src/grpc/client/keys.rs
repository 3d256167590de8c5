//! Calls upon keys that may have to wait for other officers: a refusal is believed only if what
//! they are shown is what was sent.

use prost::Message;
use tonic::{Response, Status};

use super::{Client, ClientError, Refusal};
use crate::grpc::proto;

impl Client {
    /// Moves a version of a key to another state.
    pub async fn set_key_state(
        &self,
        request: proto::SetKeyStateRequest,
    ) -> Result<proto::SetKeyStateResponse, ClientError> {
        let sent = request.encode_to_vec();
        believed("SetKeyState", &sent, self.keys().set_key_state(request).await)
    }

    /// Makes a version of a key its primary one.
    pub async fn set_primary_version(
        &self,
        request: proto::SetPrimaryVersionRequest,
    ) -> Result<proto::SetPrimaryVersionResponse, ClientError> {
        let sent = request.encode_to_vec();
        believed("SetPrimaryVersion", &sent, self.keys().set_primary_version(request).await)
    }

    /// Lists all keys that a request asks for, page by page; its own page is not looked at.
    pub async fn list_keys(
        &self,
        filter: proto::KeyFilter,
    ) -> Result<Vec<proto::Key>, ClientError> {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let filter = Some(filter.clone());
            let request = proto::ListKeysRequest { page_size: 100, page_token, filter };
            let page = self.keys().list_keys(request).await?.into_inner();
            listed.extend(page.keys);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(listed);
            }
        }
    }

    /// Lists all versions of a key.
    pub async fn list_key_versions(&self, name: &str) -> Result<Vec<proto::Key>, ClientError> {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let name = name.to_owned();
            let request = proto::ListKeyVersionsRequest { name, page_size: 100, page_token };
            let page = self.keys().list_key_versions(request).await?.into_inner();
            listed.extend(page.keys);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(listed);
            }
        }
    }
}

fn believed<A>(
    method: &str,
    sent: &[u8],
    answer: Result<Response<A>, Status>,
) -> Result<A, ClientError> {
    let answer = answer.map_err(|status| Refusal::from(status).of_sent(method, sent))?;
    Ok(answer.into_inner())
}
