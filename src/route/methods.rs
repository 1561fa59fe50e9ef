//! The routes that share one host and one path pattern, told apart by method.

use http::Method;

/// At most one route per method, and at most one for all others.
#[derive(Debug, Default)]
pub(super) struct Methods {
    named: Vec<(Method, usize)>,
    any: Option<usize>,
}

impl Methods {
    /// Adds a route. Err: the route that takes the same requests already.
    pub(super) fn insert(&mut self, methods: Option<&[Method]>, route: usize) -> Result<(), usize> {
        let Some(methods) = methods else {
            return match self.any.filter(|&other| other != route) {
                Some(other) => Err(other),
                None => {
                    self.any = Some(route);
                    Ok(())
                }
            };
        };
        for method in methods {
            match self.named(method) {
                Some(other) if other != route => return Err(other),
                Some(_) => {}
                None => self.named.push((method.clone(), route)),
            }
        }
        Ok(())
    }

    /// A route that names the method before one that implies it (HEAD by GET) before one for all.
    pub(super) fn choose(&self, method: &Method) -> Option<usize> {
        self.named(method)
            .or_else(|| {
                (method == Method::HEAD)
                    .then(|| self.named(&Method::GET))
                    .flatten()
            })
            .or(self.any)
    }

    pub(super) fn takes_all(&self) -> bool {
        self.any.is_some()
    }

    pub(super) fn allowed(&self) -> impl Iterator<Item = Method> + '_ {
        self.named.iter().flat_map(|(method, _)| {
            let implied = (method == Method::GET).then_some(Method::HEAD);
            std::iter::once(method.clone()).chain(implied)
        })
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = usize> + '_ {
        self.named.iter().map(|&(_, route)| route).chain(self.any)
    }

    fn named(&self, method: &Method) -> Option<usize> {
        self.named
            .iter()
            .find(|(named, _)| named == method)
            .map(|&(_, route)| route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_method_goes_before_an_implied_one_before_all() {
        let mut methods = Methods::default();
        assert_eq!(methods.insert(None, 0), Ok(()));
        assert_eq!(methods.choose(&Method::HEAD), Some(0));
        assert_eq!(methods.insert(Some(&[Method::GET]), 1), Ok(()));
        assert_eq!(methods.choose(&Method::HEAD), Some(1));
        assert_eq!(methods.insert(Some(&[Method::HEAD]), 2), Ok(()));
        assert_eq!(methods.choose(&Method::HEAD), Some(2));
        assert_eq!(methods.choose(&Method::POST), Some(0));
    }

    #[test]
    fn overlapping_methods_of_another_route_are_refused() {
        let mut methods = Methods::default();
        assert_eq!(methods.insert(Some(&[Method::GET, Method::GET]), 0), Ok(()));
        assert_eq!(
            methods.insert(Some(&[Method::POST, Method::GET]), 1),
            Err(0)
        );
        assert_eq!(methods.insert(None, 2), Ok(()));
        assert_eq!(methods.insert(None, 2), Ok(()));
        assert_eq!(methods.insert(None, 3), Err(2));
    }
}
